"""Prompts and answers as token ids, tokenised apart so that it is exact where an answer begins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from mmavlm.core.errors import ConfigError
from mmavlm.model.llm.chat import (
    PROMPT_FIELD,
    VIDEO,
    VIDEO_FIELD,
    Frame,
    bare,
    chat_frame,
    chat_template,
    plain_frame,
)
from mmavlm.model.plain_text import PlainTokenizer
from mmavlm.model.text import cut

log = logging.getLogger(__name__)


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
    does not count as prompt. Prompts lose their beginning beyond `max_prompt_tokens`, which the
    first of them warns of. Answers end with the template's end of turn where that is a token, else
    with end-of-text, and lose their end beyond `max_answer_tokens`. Where the tokenizer tells
    " word" from "word" and the model `continues` the prompt, answers are read with the space that
    would precede them; a decoder's own text has the special tokens that the tokenizer puts in
    front of one.

    Prompts and answers are plain text, whatever control tokens they spell (`PlainTokenizer`);
    those of a template are control tokens.

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
        self._plain = PlainTokenizer(tokenizer, [VIDEO])
        self._video_id = self._plain.mark_ids[VIDEO]
        self.num_rows = self._plain.num_rows  # that a table of token embeddings needs
        self.max_prompt_tokens = max_prompt_tokens
        self.max_answer_tokens = max_answer_tokens
        self.continues = continues
        self.eos_id = int(tokenizer.eos_token_id)
        self.pad_id = self.eos_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.end_id = self.eos_id  # what an answer ends with
        self._space = " " if continues and self._tells_spaces() else ""
        self._told_of_cuts = False
        self._anchor = ""
        self._anchor_ids: list[int] = []
        self.chats = (jinja := chat_template(chat, tokenizer)) is not None
        self.frame: Frame | None = None
        if jinja is not None:
            self.frame = chat_frame(tokenizer, jinja, template)
            self._take_turns(self.frame)
        elif VIDEO_FIELD in template:
            self.frame = plain_frame(template)
        around = (self.frame.before, self.frame.behind) if self.frame else bare(template)
        self._before, self._behind = map(self._plain.named, around)

    def prompt(self, text: str) -> Prompt:
        """Ids of a prompt, with what the tokenizer or the chat template puts around it.

        Raises:
            ConfigError: if the text holds the character that stands for the video.
        """
        front, end = ([], []) if self.chats else self._plain.affixes
        if self.frame is None:
            room = max(0, self.max_prompt_tokens - len(front) - len(end))
            ids = self._around(text)
            self._tell_of_cut(len(ids), room)
            return Prompt([*front, *cut(ids, room, "left"), *end])
        if VIDEO in text:
            raise ConfigError(
                f"the prompt {text!r} holds U+{ord(VIDEO):X}, which stands for the video here; "
                "take it out"
            )
        ids = [*front, *self._around(self._cut(text)), *end]
        at = ids.index(self._video_id)
        return Prompt([*ids[:at], *ids[at + 1 :]], at)

    @property
    def longest_prompt(self) -> int:
        """How many tokens a prompt has at most, with the template around it."""
        return self.max_prompt_tokens + (len(self.prompt("")) if self.frame else 0)

    def answer(self, text: str) -> list[int]:
        """Ids of an answer and its end; an answer that is cut has no end."""
        return [*self._answer(text), self.end_id][: self.max_answer_tokens]

    def candidates(self, texts: Sequence[str], with_end: bool) -> list[list[int]]:
        """Ids of answers to choose from, with their ends or without.

        Raises:
            ConfigError: if there are none, or without its end one has no token to be chosen by.
        """
        if not texts:
            raise ConfigError("there is nothing to rank; give at least one candidate answer")
        if with_end:
            return [self.answer(text) for text in texts]
        nothing = self._answer("")
        found = [self._answer(text)[: self.max_answer_tokens] for text in texts]
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

    def _take_turns(self, frame: Frame) -> None:
        """Let answers be written as a chat template writes the assistant's turn."""
        ends = self._plain.ids("", before=self._plain.named(frame.end))[:1]
        if self.continues and ends and ends[0] in self.tokenizer.added_tokens_decoder:
            self.end_id = ends[0]
        self._space = frame.space
        self._anchor = self._plain.named(frame.behind)
        self._anchor_ids = self._plain.ids("", before=self._anchor)

    def _around(self, text: str) -> list[int]:
        """Ids of a prompt within its template, which may write control tokens itself."""
        behind = self._behind.replace(PROMPT_FIELD, text)
        return self._plain.ids(text, before=self._before, behind=behind)

    def _cut(self, text: str) -> str:
        """A prompt without its beginning, if it is too long."""
        ids = self._plain.ids(text)
        if len(ids) <= self.max_prompt_tokens:
            return text
        self._tell_of_cut(len(ids), self.max_prompt_tokens)
        # A character of several bytes may have lost the first of them.
        return str(self.tokenizer.decode(ids[-self.max_prompt_tokens :])).lstrip("\ufffd ")

    def _tell_of_cut(self, tokens: int, room: int) -> None:
        """Warn of the first prompt that loses its beginning."""
        if tokens <= room or self._told_of_cuts:
            return
        self._told_of_cuts = True
        log.warning(
            "a prompt of %d tokens loses its beginning, as will others: the language model reads "
            "the last %d; raise llm.max_prompt_tokens=%d to ask all of it",
            tokens,
            room,
            self.max_prompt_tokens,
        )

    def _answer(self, text: str) -> list[int]:
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
