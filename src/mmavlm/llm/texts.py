"""Prompts and answers as token ids, tokenised apart so that it is exact where an answer begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mmavlm.errors import ConfigError

PROMPT_FIELD = "{prompt}"


class Texts:
    """Texts ↔ token ids of one language model.

    Prompts lose their beginning beyond `max_prompt_tokens`; answers end with end-of-text and lose
    their end beyond `max_answer_tokens`. Where the tokenizer tells " word" from "word" and the
    model `continues` the prompt, answers are read with the space that would precede them.

    Raises:
        ConfigError: if the template has no `{prompt}`, a length is below 1, or the tokenizer has
            no end-of-text token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: str,
        max_prompt_tokens: int,
        max_answer_tokens: int,
        continues: bool,
    ) -> None:
        if PROMPT_FIELD not in template:
            raise ConfigError(f"llm.prompt_template is {template!r}; it must hold {PROMPT_FIELD}")
        if min(max_prompt_tokens, max_answer_tokens) < 1:
            raise ConfigError(
                f"llm.max_prompt_tokens is {max_prompt_tokens} and llm.max_answer_tokens "
                f"{max_answer_tokens}; both must be 1 or more"
            )
        if tokenizer.eos_token_id is None:
            raise ConfigError("the LLM's tokenizer has no end-of-text token; choose llm.tokenizer")
        self.tokenizer = tokenizer
        self.tokenizer.truncation_side = "left"
        self.template = template
        self.max_prompt_tokens = max_prompt_tokens
        self.max_answer_tokens = max_answer_tokens
        self.eos_id = int(tokenizer.eos_token_id)
        self.pad_id = self.eos_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self._space = " " if continues and self._tells_spaces() else ""

    def prompt(self, text: str) -> list[int]:
        """Ids of a prompt, with the special tokens the tokenizer puts around a text."""
        return self.tokenizer(
            self.template.replace(PROMPT_FIELD, text),
            truncation=True,
            max_length=self.max_prompt_tokens,
        )["input_ids"]

    def answer(self, text: str) -> list[int]:
        """Ids of an answer and end-of-text; an answer that is cut has no end."""
        ids = self._plain(self._space + text) if text else []
        return [*ids, self.eos_id][: self.max_answer_tokens]

    def until_end(self, ids: Sequence[int]) -> list[int]:
        """Generated ids up to and including end-of-text."""
        ids = list(ids)
        return ids[: ids.index(self.eos_id) + 1] if self.eos_id in ids else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without special tokens and outer spaces."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _tells_spaces(self) -> bool:
        """Whether a word alone has other ids than the same word behind another."""
        alone = self._plain("is")
        return self._plain("it is")[-len(alone) :] != alone


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids → ids (N,L) and mask (N,L), padded on the right with id 0."""
    length = max(map(len, rows), default=0)
    ids = torch.tensor(
        [[*row, *[0] * (length - len(row))] for row in rows], dtype=torch.int64
    ).view(len(rows), length)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(length) < lengths[:, None]
    return ids.to(device), mask.to(device)
