"""Conversations about media: who says what, and which film, picture or sound is shown where.

All are values, checked when they are made. A question about one film is a conversation of two
turns: `Conversation.question`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from mmavlm.core.errors import DataError

Role = Literal["system", "user", "assistant"]
Kind = Literal["film", "picture", "sound"]
GridSampling = Literal["windows", "segments"]
ROLES, KINDS, SAMPLINGS = get_args(Role), get_args(Kind), get_args(GridSampling)


@dataclass(frozen=True, slots=True)
class FrameGrid:
    """The grid of extracted frames that an annotation counts, and how frames are taken of it.

    `windows`: evenly, as MA-LMM takes LVU's; `segments`: one of each of T equal segments.

    Raises:
        DataError: if the sampling is unknown.
    """

    frames: int
    sampling: GridSampling

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS:
            known = ", ".join(SAMPLINGS)
            raise DataError(f"a grid is sampled by {self.sampling!r}; expected one of {known}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """A stretch of a film, a picture (a film of one frame) or a sound.

    `source` is a file or a folder of frames. `start_s` and `end_s` bound the stretch; None is the
    end. `grid` is there where the annotation counts frames of its own.

    Raises:
        DataError: if the kind is unknown.
    """

    medium_id: str
    source: Path
    kind: Kind = "film"
    start_s: float = 0.0
    end_s: float | None = None
    grid: FrameGrid | None = None

    @property
    def is_sound(self) -> bool:
        """Whether it is heard, and not seen."""
        return self.kind == "sound"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            known = ", ".join(KINDS)
            raise DataError(
                f"{self.medium_id!r} is a medium of kind {self.kind!r}; expected one of {known}"
            )


@dataclass(frozen=True, slots=True)
class Shown:
    """The part of a turn that shows a medium, by its number in the conversation."""

    medium: int = 0


FIRST = Shown(0)
Part = str | Shown


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
        empty = True
        for part in self.parts:
            if not isinstance(part, str):
                empty = False
                if self.role == "assistant":
                    raise DataError(
                        "the turn of the assistant shows a medium; only other turns can"
                    )
            elif empty and part.strip():
                empty = False
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
        """The numbers of the media it shows, in order."""
        return tuple(part.medium for part in self.parts if isinstance(part, Shown))


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
            "media": [_plain_medium(medium) for medium in self.media],
            "turns": [_plain_turn(turn) for turn in self.turns],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Conversation:
        """The conversation of such values.

        Raises:
            DataError: if they are not of this form.
        """
        try:
            media = tuple(_medium(medium) for medium in values.get("media", ()))
            turns = tuple(
                Turn(
                    turn["role"],
                    tuple(
                        p if isinstance(p, str) else Shown(int(p["medium"])) for p in turn["parts"]
                    ),
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


def _plain_medium(medium: Medium) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "id": medium.medium_id,
        "source": str(medium.source),
        "kind": medium.kind,
        "start_s": medium.start_s,
        "end_s": medium.end_s,
    }
    if medium.grid is not None:
        plain["grid"] = {"frames": medium.grid.frames, "sampling": medium.grid.sampling}
    return plain


def _plain_turn(turn: Turn) -> dict[str, Any]:
    parts = [part if isinstance(part, str) else {"medium": part.medium} for part in turn.parts]
    learned = {"learned": True} if turn.learned else {}
    guide = {} if turn.guide is None else {"guide": turn.guide}
    return {"role": turn.role, "parts": parts, **learned, **guide}


def _medium(values: Mapping[str, Any]) -> Medium:
    grid = values.get("grid")
    end_s = values.get("end_s")
    return Medium(
        medium_id=str(values["id"]),
        source=Path(values["source"]),
        kind=values.get("kind", "film"),
        start_s=float(values.get("start_s", 0.0)),
        end_s=None if end_s is None else float(end_s),
        grid=None if grid is None else FrameGrid(int(grid["frames"]), grid["sampling"]),
    )
