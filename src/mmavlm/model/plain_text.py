"""Users' texts as token ids: plain text, whatever control tokens they spell."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase

from mmavlm.core.errors import ConfigError

MARK = "\ue0f3"  # of the private use area; control tokens are named by it and a number

Span = tuple[int, int, int]  # the id of a token, and where it starts and stops in the text


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
        # A text may also begin or end with part of a name, which the template would complete.
        self._refused = re.compile(rf"{MARK}\d+{MARK}|{MARK}\d*\Z|\A\d*{MARK}")
        self._control_ids = {*self._ids.values()}
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
        whole = [f"{before}{self.checked(text)}{behind}" for text in texts]
        if self._backend is None:
            return [[i for i, _, _ in self._in_sections(text, ())] for text in whole]
        return [e.ids for e in self._backend.encode_batch(whole, add_special_tokens=False)]

    def checked(self, text: str) -> str:
        """The text, if it can stand in a `named` template and name no control token there.

        Raises:
            ConfigError: if it holds such a name, or a part of one at its ends.
        """
        if MARK in text and self._refused.search(text):
            raise ConfigError(
                f"the text {text!r} holds U+{ord(MARK):X} and a number, which stand for a "
                "control token here; take it out"
            )
        return text

    def seamed(self, whole: str, seams: Sequence[int]) -> tuple[list[int], list[int]]:
        """Ids of a `named` template with `checked` texts in it, and how many lie before each seam.

        Seams are places in the text, in order. Where a token would lie across one, what is behind
        the seam is tokenised by itself.
        """
        spans = self._spans(whole, seams)
        ids, starts = [i for i, _, _ in spans], [start for _, start, _ in spans]
        places = []
        for n, seam in enumerate(seams):
            at = bisect_left(starts, seam)
            # A control token may take the spaces around it, which are no part of its name.
            if at and spans[at - 1][2] > seam and ids[at - 1] not in self._control_ids:
                left, before = self.seamed(whole[:seam], seams[:n])
                right, behind = self.seamed(whole[seam:], [later - seam for later in seams[n:]])
                return left + right, before + [len(left) + place for place in behind]
            places.append(at)
        return ids, places

    def _spans(self, whole: str, seams: Sequence[int]) -> list[Span]:
        if self._backend is None:
            return self._in_sections(whole, seams)
        found = self._backend.encode(whole, add_special_tokens=False)
        return [(i, *span) for i, span in zip(found.ids, found.offsets, strict=True)]

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

    def _in_sections(self, text: str, seams: Sequence[int]) -> list[Span]:
        """As the tokenizers written in Python do it: what is between control tokens, by itself."""
        spans: list[Span] = []
        start, added = 0, self.tokenizer.added_tokens_decoder
        for found in self._named.finditer(text):
            control, stop = self._ids[found[0]], found.start()
            if control in added and added[control].lstrip:  # it takes the spaces on its left
                stop = start + len(text[start:stop].rstrip())
            spans += [*self._section(text, start, stop, seams), (control, *found.span())]
            start = found.end()
            if control in added and added[control].rstrip:
                start += len(text[start:]) - len(text[start:].lstrip())
        return spans + self._section(text, start, len(text), seams)

    def _section(self, text: str, start: int, stop: int, seams: Sequence[int]) -> list[Span]:
        """The tokens between two places, which are told apart at seams that no token crosses."""
        ids = self._split(text[start:stop], "text")
        spans: list[Span] = []
        for seam in [seam for seam in seams if start < seam < stop]:
            head = self._split(text[start:seam], "text")
            if ids[: len(head)] == head:
                since = spans[-1][2] if spans else start
                spans += [(i, since, seam) for i in head[len(spans) :]]
        since = spans[-1][2] if spans else start
        return spans + [(i, since, stop) for i in ids[len(spans) :]]

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
    # A post-processor adds affixes, or takes spaces out of the places of tokens.
    whole |= {"truncation": None, "padding": None, "post_processor": None}
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
