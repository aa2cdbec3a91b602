"""The turns that a session remembers while a film runs, and which of them it forgets first.

Shapes: K tokens of a look, Dl LLM width.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from mmavlm.core.turns import Role, Turn
from mmavlm.model.llm.turn_by_turn import TurnByTurn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """Tokens (K,Dl) of a look, and the ids in front of them that say when it is."""

    tokens: Tensor
    time_s: float | None
    front: list[int]

    @property
    def length(self) -> int:
        """How many tokens that are."""
        return len(self.front) + len(self.tokens)


@dataclass
class Held:
    """A turn that is remembered: ids in front, its looks, ids behind.

    What is said is among the ids in front. A turn without ids behind may still be `open`.
    """

    role: Role
    text: str
    front: list[int]
    looks: list[Look] = field(default_factory=list)
    behind: list[int] = field(default_factory=list)
    open: bool = False

    @property
    def length(self) -> int:
        """How many tokens it takes."""
        return len(self.front) + sum(look.length for look in self.looks) + len(self.behind)


def without_oldest(turns: Sequence[Held], most: int, write: TurnByTurn) -> list[Held]:
    """The turns without the oldest frames and the answers that followed them, of `most` tokens.

    The newest frame stays, since an answer may follow. Frames and answers go with all that is
    written around them, so what is left is a conversation as `write` writes it.
    """
    excess, kept = sum(turn.length for turn in turns) - most, []
    answered = False  # whether the frames before an answer are gone
    for n, held in enumerate(turns):
        gone = held.role == "assistant" and answered
        answered = False
        if held.role == "stream" and excess > 0:
            last = n + 1 == len(turns)
            while len(held.looks) > last and excess > 0:
                excess -= held.looks.pop(0).length
            if held.looks:
                held.looks[0] = _as_first(held.looks[0], write)
            gone = answered = not held.looks and not last
        excess -= len(held.front) + len(held.behind) if gone else 0
        if not gone:
            kept.append(held)
    _begin(kept, write)
    return kept


def without_first_questions(turns: Sequence[Held], most: int, write: TurnByTurn) -> list[Held]:
    """The turns without the oldest questions and the answers right behind them, of `most` tokens.

    The newest question and what the system says stay. Each question that goes is named in the log.
    """
    excess = sum(turn.length for turn in turns) - most
    kept: list[Held] = []
    newest = max((n for n, turn in enumerate(turns) if turn.role == "user"), default=-1)
    for n, held in enumerate(turns):
        unasked = not kept or kept[-1].role == "system"
        if (held.role == "user" and n < newest and excess > 0) or (
            held.role == "assistant" and unasked
        ):
            excess -= held.length
            if held.role == "user":
                log.warning("the window is full of questions; forgotten is: %s", held.text)
            continue
        kept.append(held)
    _begin(kept, write)
    return kept


def _begin(turns: Sequence[Held], write: TurnByTurn) -> None:
    """Let the start of a conversation stand in front of whichever turn is the first."""
    for first in turns[:1]:
        if first.role == "stream":
            first.front = write.opening("stream", first=True)
        else:
            first.front = write.said(Turn(first.role, (first.text,)), first=True)[0]


def _as_first(look: Look, write: TurnByTurn) -> Look:
    """The look with what is written in front of the first of a stream."""
    return replace(look, front=write.time(look.time_s, first=True))
