"""Users' texts as token ids: plain text, whatever control tokens they spell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase

from mmavlm.core.errors import ConfigError

MARK = "\ue0f3"  # of the private use area; control tokens are named by it and a number


class PlainTokenizer:
    """Texts → ids without the tokenizer's affixes, where no text becomes a control token.

    Control tokens are those the tokenizer calls special. Splitting them, as transformers can,
    is not enough: the model of a tokenizer may know `</s>` as a piece, or its normaliser turn
    other signs into it. So they have names here that no text has, which `named` writes into a
    template; each of `marks` has one too, and an id of its own behind all others.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, marks: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.num_rows = num_rows(tokenizer)
        ids = _control_tokens(tokenizer)
        self._names = {text: f"{MARK}{i}{MARK}" for i, text in enumerate([*ids, *marks])}
        self._backend = _backend(tokenizer, {text: self._names[text] for text in ids})
        for i, mark in enumerate(marks):
            ids[mark] = self.num_rows + i
            if self._backend is not None:
                self._backend.add_special_tokens([AddedToken(self._names[mark], normalized=False)])
                ids[mark] = int(self._backend.token_to_id(self._names[mark]) or 0)  # just added
        self.mark_ids = {mark: ids[mark] for mark in marks}
        self._ids = {self._names[text]: i for text, i in ids.items()}
        self._spelled, self._named = _any_of(self._names), _any_of(self._ids)
        self.affixes = self._affixes("text")

    def named(self, template: str) -> str:
        """A template whose control tokens and marks have the names they have here."""
        return self._spelled.sub(lambda found: self._names[found[0]], template)

    def ids(self, text: str, *, before: str = "", behind: str = "") -> list[int]:
        """Ids of a text between two parts of a `named` template, tokenised as one.

        Raises:
            ConfigError: if the text holds such a name, or cannot be told from a control token.
        """
        return self.batch([text], before=before, behind=behind)[0]

    def batch(self, texts: Sequence[str], *, before: str = "", behind: str = "") -> list[list[int]]:
        """The same for several texts."""
        for text in texts:
            if self._named.search(text):
                raise ConfigError(
                    f"the text {text!r} holds U+{ord(MARK):X} and a number, which stand for a "
                    "control token here; take it out"
                )
        whole = [f"{before}{text}{behind}" for text in texts]
        if self._backend is None:
            return [self._in_sections(text) for text in whole]
        return [e.ids for e in self._backend.encode_batch(whole, add_special_tokens=False)]

    def target(self, text: str) -> list[int]:
        """Ids of an answer that a decoder writes, affixes included.

        Some tokenizers have other affixes for it, and some written in Python other pieces.
        """
        front, end = self._target_affixes
        ids = self._split(text, "text_target") if self._backend is None else self.ids(text)
        return [*front, *ids, *end]

    @cached_property
    def _target_affixes(self) -> tuple[list[int], list[int]]:
        return self._affixes("text_target")

    def _affixes(self, kind: str) -> tuple[list[int], list[int]]:
        """What the tokenizer puts in front of a text, and behind it."""
        whole = self.tokenizer(**{kind: "a"})["input_ids"]
        inner = self.tokenizer(**{kind: "a"}, add_special_tokens=False)["input_ids"]
        size = len(inner)
        at = next(i for i in range(len(whole) + 1) if whole[i : i + size] == inner)
        return whole[:at], whole[at + size :]

    def _in_sections(self, text: str) -> list[int]:
        """As the tokenizers written in Python do it: what is between control tokens, by itself."""
        ids, start, added = [], 0, self.tokenizer.added_tokens_decoder
        for found in self._named.finditer(text):
            control = self._ids[found[0]]
            section, start = text[start : found.start()], found.end()
            if control in added and added[control].lstrip:  # it takes the spaces on its left
                section = section.rstrip()
            if control in added and added[control].rstrip:
                start += len(text[start:]) - len(text[start:].lstrip())
            ids += [*self._split(section, "text"), control]
        return ids + self._split(text[start:], "text")

    def _split(self, text: str, kind: str) -> list[int]:
        if not text:
            return []
        if not self._spelled.search(text):
            return self.tokenizer(**{kind: text}, add_special_tokens=False)["input_ids"]
        ids = self.tokenizer(**{kind: text}, add_special_tokens=False, split_special_tokens=True)
        if ({*self._ids.values()} - {self.tokenizer.unk_token_id}) & {*ids["input_ids"]}:
            raise ConfigError(
                f"the text {text!r} spells a control token, and {type(self.tokenizer).__name__} "
                "cannot read it as plain text; take it out"
            )
        return ids["input_ids"]


def num_rows(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many rows a table of token embeddings needs; ids may have gaps."""
    return 1 + int(max(tokenizer.get_vocab().values()))


def _backend(tokenizer: PreTrainedTokenizerBase, names: dict[str, str]) -> Tokenizer | None:
    """A copy of what tokenises, with other names for some tokens; None if that is Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    return Tokenizer.from_str(json.dumps(_renamed(json.loads(backend.to_str()), names)))


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Any of the texts, the longest that fits; nothing if there are none."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Spelling → id. A single character is none: where "!" pads, it is still an ordinary sign."""
    added = tokenizer.added_tokens_decoder
    found = {token.content: i for i, token in added.items() if token.special}
    names = tokenizer.all_special_tokens
    found |= dict(zip(names, tokenizer.convert_tokens_to_ids(names), strict=True))
    return {text: int(i) for text, i in found.items() if len(text.strip()) > 1}


def _renamed(whole: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A tokenizer of the library `tokenizers`, as JSON, with other names for some tokens."""
    whole |= {"truncation": None, "padding": None}
    for token in whole["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = whole["model"]
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(piece, piece): i for piece, i in vocab.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
    if (unknown := model.get("unk_token")) is not None:
        model["unk_token"] = names.get(unknown, unknown)
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        model["merges"] = [
            (left, right)
            for left, right in pairs
            if not {left, right, left + right.removeprefix(prefix)} & names.keys()
        ]
    return whole
