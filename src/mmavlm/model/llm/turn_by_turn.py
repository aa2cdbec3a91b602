"""Conversations in which a film runs as token ids: turn by turn, as they come.

Nobody can tokenise as one text what is not said yet. So each turn is tokenised by itself, with what
stands in front of it and behind it; all of a conversation is its turns, one behind the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmavlm.core.turns import Role, Turn
from mmavlm.model.llm.answers import Answers
from mmavlm.model.llm.around_turns import AroundTurns
from mmavlm.model.llm.said import Said
from mmavlm.model.plain_text import PlainTokenizer

Spans = list[tuple[int, int]]
Asked = Callable[[Turn, bool], tuple[list[int], list[int]]]


class TurnByTurn:
    """Ids of single turns, the `first` of a conversation among them.

    `around` is what a chat template writes around turns. Without one (None) `asked` gives the ids
    of a turn of the user or the system, and where its media stand.
    """

    def __init__(
        self,
        plain: PlainTokenizer,
        said: Said,
        answers: Answers,
        asked: Asked,
        around: AroundTurns | None,
    ) -> None:
        self._plain = plain
        self._said = said
        self._answers = answers
        self._asked = asked if around is None else self._in_template
        self._front = plain.affixes[0] if around is None else []
        self._around = around or AroundTurns()

    def opening(self, role: Role, *, first: bool = False) -> list[int]:
        """What stands in front of frames or of an answer."""
        front = self._around.front[role] if first else ""
        ids = self._plain.ids("", before=front + self._around.opening[role])
        return [*(self._front if first else []), *ids]

    def closing(self, role: Role) -> list[int]:
        """What stands behind frames, or behind the end of an answer."""
        closing = self._around.closing[role]
        if role == "assistant" and closing.lstrip().startswith(self._answers.written_end):
            closing = closing.lstrip()[len(self._answers.written_end) :]
        return self._plain.ids("", before=closing)

    def said(self, turn: Turn, *, first: bool = False) -> tuple[list[int], list[int]]:
        """Ids of an entire turn of the user or the system, and where its media stand."""
        return self._asked(turn, first)

    def answer(self, text: str) -> list[int]:
        """Ids of an answer with its end; see `Answers.ids`."""
        return self._answers.ids(text)

    def _in_template(self, turn: Turn, first: bool) -> tuple[list[int], list[int]]:
        role = turn.role
        before = (self._around.front[role] if first else "") + self._around.opening[role]
        before, behind = self._said.with_films([before, self._around.closing[role]], [turn])
        text = before + self._said.text(turn) + behind
        ids, media_at, _ = self._said.tokenised(text, [])
        return ids, media_at


def joined_turns(write: TurnByTurn, turns: Sequence[Turn]) -> tuple[list[int], list[int], Spans]:
    """Ids of turns one behind the other, where media stand, and which ids are learned."""
    ids: list[int] = []
    media_at: list[int] = []
    learned: Spans = []
    for n, turn in enumerate(turns):
        if turn.role in ("user", "system"):
            said, places = write.said(turn, first=n == 0)
            media_at += [len(ids) + place for place in places]
            ids += said
            continue
        ids += write.opening(turn.role, first=n == 0)
        start = len(ids)
        if turn.role == "assistant":
            ids += write.answer(turn.text)
            learned += [(start, len(ids))] if turn.learned else []
        else:
            media_at += [start] * len(turn.parts)
        ids += write.closing(turn.role)
    return ids, media_at, learned
