"""Conversations about media: who says what, and which film, picture or sound is shown where.

All are values, checked when they are made. A question about one film is a conversation of two
turns: `Conversation.question`. Where a film runs while others speak, its frames are turns of their
own, of the role `stream`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmavlm.core.errors import DataError
from mmavlm.core.medium import Medium
from mmavlm.core.turns import FIRST, Part, Shown, Turn, check_order, plain_turn, turn_of


@dataclass(frozen=True, slots=True)
class View:
    """A medium as seen under the guide of the turn that shows it, and the reply to that."""

    medium: int
    guide: str
    reply: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns, and the media they show by number.

    The system may speak first. Then user and assistant take turns, the user first; streams stand
    between (see `check_order`), and each goes on with its film where the one before has stopped.

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
        _check_streams(self.turns)
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
        found, asked = [], ""
        for turn, reply in zip(self.turns, behind, strict=True):
            asked = turn.text if turn.role != "stream" else asked
            guide = asked if turn.guide is None else turn.guide
            said = reply.text if reply and reply.role == "assistant" else ""
            found += [View(number, guide, said) for number in turn.shows]
        return tuple(found)

    @property
    def prompt(self) -> str:
        """The text of the last turn of the user, "" where it says nothing."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "user"), "")

    @property
    def target(self) -> str:
        """The text of the assistant's last turn, "" where the user's is the last."""
        last = self.turns[-1]
        return last.text if last.role == "assistant" else ""

    @property
    def asked(self) -> Conversation:
        """What the assistant is asked: all up to the last turn of the user, or the last frames."""
        if self.turns[-1].role != "assistant":
            return self
        return replace(self, turns=self.turns[:-1])

    def with_suffix(self, text: str) -> Conversation:
        """The same with a text behind what the user says last, and a space between."""
        at = max(place for place, turn in enumerate(self.turns) if turn.role == "user")
        turn = self.turns[at]
        said = replace(turn, parts=(*turn.parts, f" {text}" if turn.text else text))
        return replace(self, turns=(*self.turns[:at], said, *self.turns[at + 1 :]))

    def answered(self, text: str, *, learned: bool = False) -> Conversation:
        """The same with an answer of the assistant to the last turn of the user."""
        return replace(self, turns=(*self.asked.turns, Turn("assistant", (text,), learned)))

    def as_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes it again."""
        return {
            "media": [medium.as_json() for medium in self.media],
            "turns": [plain_turn(turn) for turn in self.turns],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Conversation:
        """The conversation of such values.

        Raises:
            DataError: if they are not of this form.
        """
        try:
            media = tuple(Medium.from_json(medium) for medium in values.get("media", ()))
            turns = tuple(map(turn_of, values["turns"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"no conversation ({type(error).__name__}: {error}); expected media, and turns "
                'with a role and parts, such as {"role": "user", "parts": [{"medium": 0}, "Why?"]}'
            ) from error
        return cls(turns, media)


def num_views(conversations: Sequence[Conversation]) -> list[int]:
    """How many places each conversation shows a medium at."""
    return [sum(len(turn.shows) for turn in talk.turns) for talk in conversations]


def _check_streams(turns: Sequence[Turn]) -> None:
    """Refuse streams that leave out or repeat frames of their film."""
    shown: dict[int, int] = {}
    for turn in turns:
        if turn.role != "stream":
            continue
        for part in turn.parts:
            if type(part) is not Shown or part.frames is None:
                continue
            start, stop = part.frames
            if start != shown.get(part.medium, 0) or stop <= start:
                raise DataError(
                    f"a stream shows the frames {start} to {stop} of medium {part.medium}; "
                    f"expected at least one, from frame {shown.get(part.medium, 0)} on"
                )
            shown[part.medium] = stop
