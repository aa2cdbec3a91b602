"""Prompts and answers as token ids, tokenised apart so that it is exact where an answer begins."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mmavlm.errors import ConfigError
from mmavlm.llm.chat import (
    PROMPT_FIELD,
    VIDEO,
    VIDEO_FIELD,
    Frame,
    chat_frame,
    chat_template,
    plain_frame,
)


@dataclass(frozen=True)
class Prompt:
    """Ids of a prompt; the video tokens stand in front of `ids[video_at]`."""

    ids: list[int]
    video_at: int = 0

    def __len__(self) -> int:
        return len(self.ids)


class Texts:
    """Texts ↔ token ids of one language model.

    The video stands in front of a prompt, or where `{video}` is in the template, or with a chat
    template in front of the user's prompt; what such templates write around video and prompt
    does not count as prompt. Prompts lose their beginning beyond `max_prompt_tokens`. Answers
    end with the template's end of turn where that is a token, else with end-of-text, and lose
    their end beyond `max_answer_tokens`. Where the tokenizer tells " word" from "word" and the
    model `continues` the prompt, answers are read with the space that would precede them; a
    decoder's own text has the special tokens that the tokenizer puts in front of one.

    Raises:
        ConfigError: if a template cannot be used, a length is below 1, or the tokenizer has
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
        chat: str | None = None,
    ) -> None:
        _refuse_what_cannot_be(tokenizer, template, min(max_prompt_tokens, max_answer_tokens))
        self.tokenizer = tokenizer
        self.tokenizer.truncation_side = "left"
        self.template = template
        self.max_prompt_tokens = max_prompt_tokens
        self.max_answer_tokens = max_answer_tokens
        self.continues = continues
        self.eos_id = int(tokenizer.eos_token_id)
        self.pad_id = self.eos_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.end_id = self.eos_id  # what an answer ends with
        self.frame: Frame | None = None
        self._space = " " if continues and self._tells_spaces() else ""
        self._anchor = ""
        self._anchor_ids: list[int] = []
        self.chats = (jinja := chat_template(chat, tokenizer)) is not None
        if jinja is not None:
            self._take_frame(chat_frame(tokenizer, jinja, template))
        elif VIDEO_FIELD in template:
            self._take_frame(plain_frame(template))

    def prompt(self, text: str) -> Prompt:
        """Ids of a prompt, with what the tokenizer or the chat template puts around it.

        Raises:
            ConfigError: if the text holds the character that stands for the video.
        """
        if self.frame is None:
            whole = self.template.replace(PROMPT_FIELD, text)
            cut = self.tokenizer(whole, truncation=True, max_length=self.max_prompt_tokens)
            return Prompt(cut["input_ids"])
        ids = self._framed(self.frame.around(self._cut(text)))
        if ids.count(self._video_id) != 1:
            raise ConfigError(
                f"the prompt {text!r} holds U+{ord(VIDEO):X}, which stands for the video here; "
                "take it out"
            )
        at = ids.index(self._video_id)
        return Prompt([*ids[:at], *ids[at + 1 :]], at)

    def answer(self, text: str) -> list[int]:
        """Ids of an answer and its end; an answer that is cut has no end."""
        return [*self._answer(text), self.end_id][: self.max_answer_tokens]

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

    def _take_frame(self, frame: Frame) -> None:
        self.frame = frame
        self._marked = copy.deepcopy(self.tokenizer)
        self._marked.add_tokens([AddedToken(VIDEO, special=True, normalized=False)])
        self._video_id: int = self._marked.get_added_vocab()[VIDEO]
        if not self.chats:
            return
        ends = self._framed(frame.end)[:1]
        if self.continues and ends and ends[0] in self._marked.added_tokens_decoder:
            self.end_id = ends[0]
        self._space = frame.space
        self._anchor = frame.behind
        self._anchor_ids = self._framed(self._anchor)

    def _framed(self, text: str) -> list[int]:
        """Ids of a text with the video's mark; a chat template writes its special tokens itself."""
        if self.chats:
            return self._marked(text, add_special_tokens=False, split_special_tokens=False)[
                "input_ids"
            ]
        return self._marked(text, split_special_tokens=False)["input_ids"]

    def _cut(self, text: str) -> str:
        """A prompt without its beginning, if it is too long."""
        ids = self._plain(text)
        if len(ids) <= self.max_prompt_tokens:
            return text
        # A character of several bytes may have lost the first of them.
        return str(self.tokenizer.decode(ids[-self.max_prompt_tokens :])).lstrip("\ufffd ")

    def _answer(self, text: str) -> list[int]:
        """Ids of an answer as it follows the template, or else the space; of a decoder's, whole."""
        if not self.continues:
            ids = self.tokenizer(text_target=text)["input_ids"]
            return ids[:-1] if ids[-1:] == [self.eos_id] else ids
        if not text:
            return []
        if self._anchor_ids:
            ids = self._framed(self._anchor + self._space + text)
            if ids[: len(self._anchor_ids)] == self._anchor_ids:
                return ids[len(self._anchor_ids) :]
        return self._plain(self._space + text)

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _tells_spaces(self) -> bool:
        """Whether a word alone has other ids than the same word behind another."""
        alone = self._plain("is")
        return self._plain("it is")[-len(alone) :] != alone


def _refuse_what_cannot_be(
    tokenizer: PreTrainedTokenizerBase, template: str, shortest: int
) -> None:
    if PROMPT_FIELD not in template:
        raise ConfigError(f"llm.prompt_template is {template!r}; it must hold {PROMPT_FIELD}")
    if shortest < 1:
        raise ConfigError(
            f"llm.max_prompt_tokens and llm.max_answer_tokens must be 1 or more, got {shortest}"
        )
    if tokenizer.eos_token_id is None:
        raise ConfigError("the LLM's tokenizer has no end-of-text token; choose llm.tokenizer")


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids → ids (N,L) and mask (N,L), padded on the right with id 0."""
    length = max(map(len, rows), default=0)
    ids = torch.tensor(
        [[*row, *[0] * (length - len(row))] for row in rows], dtype=torch.int64
    ).view(len(rows), length)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(length) < lengths[:, None]
    return ids.to(device), mask.to(device)
