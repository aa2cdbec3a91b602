"""Answers as token ids with an end, and back."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from mmavlm.core.errors import ConfigError
from mmavlm.model.llm.chat import TurnTemplate
from mmavlm.model.plain_text import MARK, PlainTokenizer


class Answers:
    """Answers ↔ token ids of one language model.

    They end as in a chat template (`around` a user's turn): with a control token, or if the model
    `continues` the prompt with text such as `###`, which is then the `stop`. If it writes neither,
    or there is none, they end with end-of-text. Beyond `max_tokens` they lose their end.

    Where the tokenizer tells " word" from "word" and the model `continues` the prompt, they are
    read with the space that would precede them; a decoder's own text has the special tokens that
    the tokenizer puts in front of one.

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
        self.end = [self.eos_id]  # what an answer ends with
        self.written_end = plain.named(str(tokenizer.convert_ids_to_tokens(self.eos_id)))
        self.stop = ""
        self._plain = plain
        self._space = " " if continues and self._tells_spaces() else ""
        self._anchor = ""
        self._anchor_ids: list[int] = []
        if around is not None:
            if continues and around.end:
                self._end_as(around.end)
            self._space = around.space
            self._anchor = around.pieces[-1]
            self._anchor_ids = plain.ids("", before=self._anchor)

    def ids(self, text: str) -> list[int]:
        """Ids of an answer and its end; an answer that is cut has no end."""
        return [*self._ids(text), *self.end][: self.max_tokens]

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
        return [self.eos_id] if self.stop else list(dict.fromkeys([*self.end, self.eos_id]))

    @property
    def stopping(self) -> StoppingCriteriaList:
        """What stops generation beside these tokens."""
        return StoppingCriteriaList([Stop(self.tokenizer, self.stop)] if self.stop else [])

    def until_end(self, ids: Sequence[int]) -> list[int]:
        """Generated ids up to and including the first end."""
        ids = list(ids)
        ends = [ids.index(end) for end in self.end_ids if end in ids]
        ids = ids[: min(ends) + 1] if ends else ids
        if self.stop and self.stop in self._text(ids):
            return ids[: bisect_left(range(len(ids)), True, key=lambda n: self._stops(ids[:n]))]
        return ids

    def ended(self, ids: Sequence[int]) -> bool:
        """Whether generated ids hold an end, and were not cut before it."""
        return bool({*self.end_ids} & {*ids}) or (bool(self.stop) and self._stops(ids))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without its end, special tokens and outer spaces."""
        text = self._text(ids)
        return (text.partition(self.stop)[0] if self.stop else text).strip()

    def decode_begun(self, ids: Sequence[int]) -> str:
        """The same without what may be the beginning of its end."""
        text = self.decode(ids)
        begun = (n for n in range(len(self.stop) - 1, 0, -1) if text.endswith(self.stop[:n]))
        return text[: len(text) - next(begun, 0)].rstrip()

    def _text(self, ids: Sequence[int]) -> str:
        kept = [i for i in ids if i not in self.end_ids]
        return str(self.tokenizer.decode(kept, skip_special_tokens=True))

    def _stops(self, ids: Sequence[int]) -> bool:
        return self.stop in self._text(ids)

    def _end_as(self, end: str) -> None:
        """End answers as a template does: with a control token, or the text in front of one."""
        letter = "a"  # the end stands behind a word
        ids, (start,) = self._plain.seamed(letter + end, [len(letter)])
        ids, control = ids[start:], self.tokenizer.added_tokens_decoder
        text = list(takewhile(lambda i: i not in control, ids))
        if ids and not text:
            self.end = ids[:1]
            self.written_end = self._plain.named(str(self.tokenizer.convert_ids_to_tokens(ids[0])))
        elif (stop := self._text(text).strip()) and self.tokenizer.unk_token_id not in text:
            self.end, self.stop = text, stop
            self.written_end = end.partition(MARK)[0].rstrip()

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


class Stop(StoppingCriteria):
    """Stops an answer when it ends with a text, which may be several tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
        self._tokenizer = tokenizer
        self._text = text

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """Which of the answers (N,L) so far are at their end, bool (N,)."""
        last = input_ids[:, -len(self._text.encode()) :].tolist()
        texts = self._tokenizer.batch_decode(last, skip_special_tokens=True)
        return torch.tensor([self._text in text for text in texts], device=input_ids.device)
