"""Whether video, prompt and answer fit into the positions of a language model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mmavlm.core.errors import ConfigError
from mmavlm.model.token_tables import Positions, TooLongError

log = logging.getLogger(__name__)

LOWER = "llm.max_prompt_tokens, llm.max_answer_tokens, stage.max_new_tokens or qformer_queries"


@dataclass(frozen=True)
class Room:
    """Positions of a model in which video, prompt and answer stand, in one sequence if `together`.

    Otherwise an encoder reads video and prompt, and a decoder the answer, each with as many.
    The last token of an answer is predicted, never read.
    """

    positions: Positions | None
    together: bool

    def at_most(self, length: int) -> int:
        """A length, as far as there are positions for it."""
        limit = self._table
        return length if limit is None else min(length, limit)

    def check_rows(
        self,
        videos: Sequence[int],
        prompts: Sequence[int],
        answers: Sequence[int],
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Refuse rows of so many tokens for which the table of positions is too short.

        A row's video is all its media, and its prompt all that was said before the answer.
        `numbers` are those of the rows in the batch, if they are not all of it.

        Raises:
            TooLongError: naming the first of them, its parts, the limit and what to lower.
        """
        if self._table is None:
            return
        numbers = numbers or range(len(videos))
        for row, *parts in zip(numbers, videos, prompts, answers, strict=True):
            if self._longest(*parts) > self._table:
                raise TooLongError(
                    f"row {row} of the batch takes {self._parts(*parts)}, but the "
                    f"language model has {self._table} positions; lower {LOWER}",
                    row,
                )

    def check(
        self, video: int, prompt: int, max_answer_tokens: int, max_new_tokens: int
    ) -> str | None:
        """The longest texts that settings admit beside the limit, in words, or None without one.

        Raises:
            ConfigError: if a table of positions is too short for them.
        """
        if self.positions is None:
            return None
        answer, most = max(max_answer_tokens, max_new_tokens), self.positions.most
        parts = self._parts(video, prompt, answer)
        if self._longest(video, prompt, answer) <= most:
            return f"at most {parts}, of {most} positions"
        if self.positions.table:
            raise ConfigError(
                f"the language model has {most} positions, but the settings admit {parts}, with "
                f"llm.max_answer_tokens={max_answer_tokens} and a longest generated answer of "
                f"{max_new_tokens}; lower {LOWER}"
            )
        log.warning(
            "the language model was trained with %d positions, and the settings admit %s: beyond "
            "them answers get worse; lower %s",
            most,
            parts,
            LOWER,
        )
        return f"at most {parts}, of {most} positions it was trained with"

    @property
    def _table(self) -> int | None:
        known = self.positions is not None and self.positions.table
        return self.positions.most if known and self.positions else None

    def _longest(self, video: int, prompt: int, answer: int) -> int:
        """Tokens of the longest sequence that is read."""
        return video + prompt + answer - 1 if self.together else max(video + prompt, answer)

    def _parts(self, video: int, prompt: int, answer: int) -> str:
        """What the lengths are made of; an answer's last token needs no position."""
        asked = f"{video} of the video + {prompt} of the prompt"
        if self.together:
            whole = self._longest(video, prompt, answer)
            return f"{whole} tokens ({asked} + {answer - 1} of the answer before its last)"
        return f"{video + prompt} tokens ({asked}) and an answer of {answer}"
