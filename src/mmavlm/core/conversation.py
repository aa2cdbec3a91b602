"""Conversations about media: who says what, and which film, picture or sound is shown where.

All are values, checked when they are made. A question about one film is a conversation of two
turns: `Conversation.question`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mmavlm.core.errors import DataError
from mmavlm.core.medium import Medium

Role = Literal["system", "user", "assistant"]
ROLES = get_args(Role)


@dataclass(frozen=True, slots=True)
class Shown:
    """The part of a turn that shows a medium, by its number in the conversation.

    With `frames` (start, stop) it shows these of the frames that are taken of a film, and the parts
    behind it show the next ones.
    """

    medium: int = 0
    frames: tuple[int, int] | None = None

    @property
    def begins(self) -> bool:
        """Whether a view of the medium begins here, and does not go on."""
        return self.frames is None or self.frames[0] == 0


@dataclass(frozen=True, slots=True)
class Line:
    """What is said in a film between the frames around it; no part of what a turn asks."""

    text: str


FIRST = Shown(0)
Part = str | Shown | Line


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says: texts and, unless it is the assistant, media.

    `learned`: the model is trained to say this; only for the assistant. `guide`: under which text
    the media are seen, where that is not the turn's own; the language model does not read it.

    Raises:
        DataError: if the role is unknown, there is nothing in the turn, or what it holds is not
            for its role.
    """

    role: Role
    parts: tuple[Part, ...]
    learned: bool = False
    guide: str | None = None

    def __post_init__(self) -> None:
        # plain loops: a set has a hundred thousand turns
        if self.role not in ROLES:
            known = ", ".join(ROLES)
            raise DataError(f"a turn has the role {self.role!r}; expected one of {known}")
        empty, before = True, None
        for part in self.parts:
            if isinstance(part, str):
                empty = empty and not part.strip()
                continue
            empty = False
            if self.role == "assistant":
                raise DataError("the turn of the assistant shows a medium; only other turns can")
            if type(part) is Shown:
                if part.frames is not None:
                    _check_goes_on(part, before)
                before = part
        if empty:
            raise DataError(f"the turn of the {self.role} is empty; give it a text, or take it out")
        if self.learned and self.role != "assistant":
            raise DataError(f"the turn of the {self.role} is learned; only the assistant's can be")
        if self.guide is not None and not self.shows:
            raise DataError(
                f"the turn of the {self.role} has a guide, and shows no medium that is seen under "
                "it; show one, or take the guide out"
            )

    @property
    def text(self) -> str:
        """Its texts, one behind the other."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def shows(self) -> tuple[int, ...]:
        """The numbers of the media it shows, in order; one that is shown in parts once."""
        return tuple(part.medium for part in self.parts if isinstance(part, Shown) and part.begins)


def _check_goes_on(part: Shown, before: Shown | None) -> None:
    """Refuse frames that neither are a medium's first nor follow those shown right before."""
    start, stop = part.frames or (0, 0)
    same = before is not None and before.medium == part.medium
    shown = before.frames if same and before is not None else None
    if stop <= start or start not in (0, 0 if shown is None else shown[1]):
        raise DataError(
            f"a turn shows the frames {start} to {stop} of medium {part.medium}; expected at least "
            "one, from the first on or right behind those it has shown of it"
        )


@dataclass(frozen=True, slots=True)
class View:
    """A medium as seen under the guide of the turn that shows it, and the reply to that."""

    medium: int
    guide: str
    reply: str


def check_order(turns: Sequence[Turn]) -> None:
    """Refuse turns that do not stand in the order of a conversation.

    Raises:
        DataError: naming the first that is out of order.
    """
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    for number, turn in enumerate(spoken):
        expected = "assistant" if number % 2 else "user"
        if turn.role != expected:
            raise DataError(
                f"turn {number + 1} of a conversation is the {turn.role}'s; expected one of "
                f"the {expected}: they take turns, and the user begins"
            )


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns, and the media they show by number.

    The system may speak first. Then user and assistant take turns, the user first.

    Raises:
        DataError: if turns are missing or out of order, a number leads to no medium, or a medium
            is never shown.
    """

    turns: tuple[Turn, ...]
    media: tuple[Medium, ...] = ()

    def __post_init__(self) -> None:
        check_order(self.turns)
        if not self.turns or self.turns[-1].role == "system":
            raise DataError("a conversation has no turn of the user; give one")
        shown = {part.medium for turn in self.turns for part in turn.parts if type(part) is Shown}
        if shown != {*range(len(self.media))}:
            raise DataError(
                f"a conversation with {len(self.media)} media shows the numbers {sorted(shown)}; "
                "expected each of them, counted from 0"
            )

    @classmethod
    def question(
        cls, medium: Medium | None, prompt: str, target: str | None = None
    ) -> Conversation:
        """A prompt about one medium (None: about nothing), and the answer to learn if given."""
        shown: tuple[Part, ...] = () if medium is None else (FIRST,)
        asked = Turn("user", (*shown, prompt) if prompt or medium is None else shown)
        answer = (Turn("assistant", (target,), learned=True),) if target else ()
        return cls((asked, *answer), () if medium is None else (medium,))

    @property
    def views(self) -> tuple[View, ...]:
        """Each place where a medium is shown, in order."""
        behind = (*self.turns[1:], None)
        return tuple(
            View(
                number,
                turn.text if turn.guide is None else turn.guide,
                reply.text if reply and reply.role == "assistant" else "",
            )
            for turn, reply in zip(self.turns, behind, strict=True)
            for number in turn.shows
        )

    @property
    def prompt(self) -> str:
        """The text of the last turn of the user."""
        return self.turns[-1 if self.turns[-1].role == "user" else -2].text

    @property
    def target(self) -> str:
        """The text of the assistant's last turn, "" where the user's is the last."""
        last = self.turns[-1]
        return last.text if last.role == "assistant" else ""

    @property
    def asked(self) -> Conversation:
        """What the assistant is asked: all up to the last turn of the user."""
        if self.turns[-1].role == "user":
            return self
        return replace(self, turns=self.turns[:-1])

    def answered(self, text: str, *, learned: bool = False) -> Conversation:
        """The same with an answer of the assistant to the last turn of the user."""
        return replace(self, turns=(*self.asked.turns, Turn("assistant", (text,), learned)))

    def as_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes it again."""
        return {
            "media": [medium.as_json() for medium in self.media],
            "turns": [_plain_turn(turn) for turn in self.turns],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Conversation:
        """The conversation of such values.

        Raises:
            DataError: if they are not of this form.
        """
        try:
            media = tuple(Medium.from_json(medium) for medium in values.get("media", ()))
            turns = tuple(
                Turn(
                    turn["role"],
                    tuple(map(_part, turn["parts"])),
                    bool(turn.get("learned", False)),
                    None if turn.get("guide") is None else str(turn["guide"]),
                )
                for turn in values["turns"]
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"no conversation ({type(error).__name__}: {error}); expected media, and turns "
                'with a role and parts, such as {"role": "user", "parts": [{"medium": 0}, "Why?"]}'
            ) from error
        return cls(turns, media)


def num_views(conversations: Sequence[Conversation]) -> list[int]:
    """How many places each conversation shows a medium at."""
    return [sum(len(turn.shows) for turn in talk.turns) for talk in conversations]


def _plain_turn(turn: Turn) -> dict[str, Any]:
    learned = {"learned": True} if turn.learned else {}
    guide = {} if turn.guide is None else {"guide": turn.guide}
    return {"role": turn.role, "parts": [*map(_plain_part, turn.parts)], **learned, **guide}


def _plain_part(part: Part) -> str | dict[str, Any]:
    if isinstance(part, str):
        return part
    if isinstance(part, Line):
        return {"line": part.text}
    frames = {} if part.frames is None else {"frames": list(part.frames)}
    return {"medium": part.medium, **frames}


def _part(values: str | Mapping[str, Any]) -> Part:
    if isinstance(values, str):
        return values
    if "line" in values:
        return Line(str(values["line"]))
    if (frames := values.get("frames")) is None:
        return Shown(int(values["medium"]))
    start, stop = map(int, frames)
    return Shown(int(values["medium"]), (start, stop))
