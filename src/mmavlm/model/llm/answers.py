"""Answers as token ids with an end, and back."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from mmavlm.core.errors import ConfigError
from mmavlm.model.llm.chat import TurnTemplate
from mmavlm.model.plain_text import PlainTokenizer


class Answers:
    """Answers ↔ token ids of one language model.

    They end with the end of turn of a chat template (`around` a user's turn) where that is a token,
    else with end-of-text, and lose their end beyond `max_tokens`. Where the tokenizer tells " word"
    from "word" and the model `continues` the prompt, they are read with the space that would
    precede them; a decoder's own text has the special tokens that the tokenizer puts in front of
    one.

    Raises:
        ConfigError: if the tokenizer has no end-of-text token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        plain: PlainTokenizer,
        *,
        max_tokens: int,
        continues: bool,
        around: TurnTemplate | None,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise ConfigError("the LLM's tokenizer has no end-of-text token; choose llm.tokenizer")
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.continues = continues
        self.eos_id = int(tokenizer.eos_token_id)
        self.pad_id = self.eos_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.end_id = self.eos_id  # what an answer ends with
        self._plain = plain
        self._space = " " if continues and self._tells_spaces() else ""
        self._anchor = ""
        self._anchor_ids: list[int] = []
        if around is not None:
            ends = plain.ids("", before=around.end)[:1]
            if continues and ends and ends[0] in tokenizer.added_tokens_decoder:
                self.end_id = ends[0]
            self._space = around.space
            self._anchor = around.pieces[-1]
            self._anchor_ids = plain.ids("", before=self._anchor)

    def ids(self, text: str) -> list[int]:
        """Ids of an answer and its end; an answer that is cut has no end."""
        return [*self._ids(text), self.end_id][: self.max_tokens]

    def candidates(self, texts: Sequence[str], with_end: bool) -> list[list[int]]:
        """Ids of answers to choose from, with their ends or without.

        Raises:
            ConfigError: if there are none, or without its end one has no token to be chosen by.
        """
        if not texts:
            raise ConfigError("there is nothing to rank; give at least one candidate answer")
        if with_end:
            return [self.ids(text) for text in texts]
        nothing = self._ids("")
        found = [self._ids(text)[: self.max_tokens] for text in texts]
        if nothing in found:
            raise ConfigError(
                f"the candidate {texts[found.index(nothing)]!r} has no text, and without its end "
                "there is nothing to rank it by; take it out, or set stage.rank_with_eos=true"
            )
        return found

    @property
    def end_ids(self) -> list[int]:
        """Tokens at which generation stops."""
        return list(dict.fromkeys([self.end_id, self.eos_id]))

    def until_end(self, ids: Sequence[int]) -> list[int]:
        """Generated ids up to and including the first end."""
        ids = list(ids)
        ends = [ids.index(end) for end in self.end_ids if end in ids]
        return ids[: min(ends) + 1] if ends else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without special tokens and outer spaces."""
        kept = [i for i in ids if i not in self.end_ids]
        return str(self.tokenizer.decode(kept, skip_special_tokens=True)).strip()

    def _ids(self, text: str) -> list[int]:
        """Ids of an answer as it follows the template, or else the space; of a decoder's, whole."""
        if not self.continues:
            ids = self._plain.target(text)
            return ids[:-1] if ids[-1:] == [self.eos_id] else ids
        if not text:
            return []
        if self._anchor_ids:
            ids = self._plain.ids(self._space + text, before=self._anchor)
            if ids[: len(self._anchor_ids)] == self._anchor_ids:
                return ids[len(self._anchor_ids) :]
        return self._plain.ids(self._space + text)

    def _tells_spaces(self) -> bool:
        """Whether a word alone has other ids than the same word behind another."""
        alone = self._plain.ids("is")
        return self._plain.ids("it is")[-len(alone) :] != alone
