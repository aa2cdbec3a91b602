"""What turns say as text in which media have a place, and such a text as ids."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from itertools import accumulate, chain, groupby

from mmavlm.core.errors import ConfigError
from mmavlm.core.turns import Line, Part, Shown, Turn
from mmavlm.model.llm.answers import Answers
from mmavlm.model.llm.chat import VIDEO
from mmavlm.model.plain_text import PlainTokenizer
from mmavlm.model.text import cut

log = logging.getLogger(__name__)

END = "\ue0f4"  # of the private use area: the end of an answer where that is no control token


class Said:
    """The texts of turns, without the beginning of what is longer than `max_tokens`.

    `takes_films`: a template has places for media, which no text may spell.
    """

    def __init__(
        self, plain: PlainTokenizer, answers: Answers, *, max_tokens: int, takes_films: bool
    ) -> None:
        self.max_tokens = max_tokens
        self._plain = plain
        self._answers = answers
        self._takes_films = takes_films
        self._film = plain.named(VIDEO)
        self._told_of_cuts = False

    def text(self, turn: Turn, *, whole: bool = False) -> str:
        """What a turn says, with names for media, and unless `whole` without what is too long."""
        parts = parts_of(turn)[1]
        for text in (part.text if isinstance(part, Line) else part or "" for part in parts):
            if self._takes_films and VIDEO in text:
                raise ConfigError(
                    f"the prompt {text!r} holds U+{ord(VIDEO):X}, which stands for the video "
                    "here; take it out"
                )
        if not whole:
            parts = self._cut(parts)
        return "".join(map(self._written, parts))

    def with_films(self, pieces: Sequence[str], turns: Sequence[Turn]) -> list[str]:
        """The pieces of a template with as many films in each place as the user's turn has."""
        counts = iter([parts_of(turn)[0] for turn in turns if turn.role == "user"])
        film = re.compile(re.escape(self._film))
        return [film.sub(lambda _: next(counts) * self._film, piece) for piece in pieces]

    def tokenised(self, text: str, seams: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
        """Ids of a text without its films, in front of which of them these and seams are."""
        found, places = self._plain.seamed(text, seams)
        film, end = (self._plain.mark_ids[mark] for mark in (VIDEO, END))
        written = {film: [], end: self._answers.end}
        pieces = [written.get(i, [i]) for i in found]
        starts = list(accumulate(map(len, pieces), initial=0))
        media_at = [starts[at] for at, i in enumerate(found) if i == film]
        return [*chain.from_iterable(pieces)], media_at, [starts[at] for at in places]

    def tell_of_cut(self, tokens: int, room: int) -> None:
        """Warn of the first prompt that loses its beginning."""
        if tokens > room and not self._told_of_cuts:
            self._told_of_cuts = True
            log.warning(
                "a prompt of %d tokens loses its beginning, as will others: the language model "
                "reads the last %d; raise llm.max_prompt_tokens=%d to ask all of it",
                *(tokens, room, self.max_tokens),
            )

    def _written(self, part: str | Line | None) -> str:
        """A part of what is said; a line stands on a line of its own."""
        if part is None:
            return self._film
        if isinstance(part, Line):
            return f"\n{self._plain.checked(part.text)}\n"
        return self._plain.checked(part)

    def _cut(self, parts: list[str | Line | None]) -> list[str | Line | None]:
        """Texts without the beginning of them all, if they are too long; media and lines stay."""
        ids = [self._plain.ids(part) if isinstance(part, str) else [] for part in parts]
        tokens = sum(map(len, ids))
        if tokens <= self.max_tokens:
            return parts
        self.tell_of_cut(tokens, self.max_tokens)
        kept, room = list(parts), self.max_tokens
        for n in reversed(range(len(parts))):
            if len(ids[n]) > room:
                rest = self._plain.tokenizer.decode(cut(ids[n], room, "left"))
                # A character of several bytes may have lost the first of them.
                kept[n] = str(rest).lstrip("\ufffd ")
            room = max(0, room - len(ids[n]))
        return kept


def parts_of(turn: Turn) -> tuple[int, list[str | Line | None]]:
    """How many entire media a user's turn begins with; what follows, with None for each medium."""
    leading, parts = 0, turn.parts
    if turn.role == "user":
        while leading < len(parts) and _is_entire(parts[leading]):
            leading += 1
    found: list[str | Line | None] = []
    for is_text, run in groupby(parts[leading:], key=lambda part: isinstance(part, str)):
        if is_text:
            found.append("".join(part for part in run if isinstance(part, str)))
        else:
            found += [part if isinstance(part, Line) else None for part in run]
    return leading, found


def _is_entire(part: Part) -> bool:
    return isinstance(part, Shown) and part.frames is None


def has_lines(turn: Turn) -> bool:
    """Whether a turn has lines of what is said in a film."""
    return any(isinstance(part, Line) for part in turn.parts)
