"""Texts that are not true of what is shown: what `data.false_texts` makes of training items.

An object or an action in a reply is swapped for its habitual partner, an answer yes for no. The
alignment compares films with them as hard negatives (HACL, arXiv 2312.06968); where HACL asks a
language model for hallucinated captions, here they come from pairs, or from what training captions
name together. `own_answers` takes what a model itself said wrongly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from mmavlm.core.batch import FalseTexts
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.core.settings import whole_at_least
from mmavlm.data.readers.annotations import read_rows
from mmavlm.metrics import ObjectVocabulary
from mmavlm.metrics.objects import plural, singular

_YES_OR_NO = re.compile(r"(\W*)(yes|no)(\W*)", re.IGNORECASE)
_OPPOSITE = {"yes": "no", "no": "yes"}
_ARTICLE = re.compile(r"(?<![\w'-])(an?)(\s+)$", re.IGNORECASE)

FalseTextsOf = Callable[[Item], tuple[FalseTexts, ...]]  # some for each view of an item


class FalseTextMaker(Protocol):
    """How false texts are made; a value that may be sent to other processes."""

    def from_training(self, items: Sequence[Item]) -> FalseTextsOf:
        """What is not true of each view of an item, given the items of training.

        Raises:
            DataError: if nothing false can be made of any of them, or a file cannot be used.
        """


class Place(NamedTuple):
    """Where a text names something, by its first letter and behind its last one."""

    name: str
    start: int
    end: int


class _Swapping:
    """Makers of false replies by the texts of replies alone."""

    def __init__(self, at_most: int) -> None:
        whole_at_least("data.false_texts", 1, at_most=at_most)
        self.at_most = at_most

    def _checked(self, swaps: Callable[[str], Iterable[str]], items: Sequence[Item]) -> OfReplies:
        found = OfReplies(swaps, self.at_most)
        if not any(any(found(item)) for item in items):
            reply = items[0].target if items else ""
            raise DataError(
                f"data.false_texts: {type(self).__name__} finds nothing to swap in the "
                f"{len(items)} items of training, the first of which is answered {reply!r}; give "
                "words that occur there, or data.false_texts=null"
            )
        return found


@dataclass(frozen=True)
class OfReplies:
    """The first `at_most` false replies of each view under its own guide, by the true one.

    Yes is false where no is true, and no where yes is. Of other replies `swaps` gives false ones.
    """

    swaps: Callable[[str], Iterable[str]]
    at_most: int

    def __call__(self, item: Item) -> tuple[FalseTexts, ...]:
        """Guides and false replies, some for each view."""
        return tuple(
            tuple((view.guide, reply) for reply in self._replies(view.reply))
            for view in item.conversation.views
        )

    def _replies(self, reply: str) -> Iterator[str]:
        if said := _YES_OR_NO.fullmatch(reply):
            before, word, behind = said.groups()
            opposite = _OPPOSITE[word.lower()]
            opposite = opposite.upper() if word.isupper() else opposite
            return iter([before + (opposite.title() if word.istitle() else opposite) + behind])
        found = (text for text in dict.fromkeys(self.swaps(reply)) if text != reply)
        return islice(found, self.at_most)


class SwappedWords(_Swapping):
    """A word or phrase of a reply is swapped for its partner, if the reply does not name that too.

    `pairs` are two words each, singular, that often come together: objects, or actions. A pair
    holds both ways. `file` is a table of more, with the columns `word` and `partner`.

    Raises:
        ConfigError: if there is no pair, or `at_most` is below 1.
        DataError: naming file, row and column of what cannot be used.
    """

    def __init__(
        self,
        pairs: Iterable[Sequence[str]] = (),
        file: str | Path | None = None,
        at_most: int = 4,
    ) -> None:
        super().__init__(at_most)
        self.pairs = [tuple(pair) for pair in pairs]
        self.file = None if file is None else Path(file)
        if wrong := [pair for pair in self.pairs if not _is_pair(pair)]:
            raise ConfigError(
                f"data.false_texts.pairs has {list(wrong[0])}; give two different words a pair, "
                "such as [clock, mirror]"
            )
        if not self.pairs and self.file is None:
            raise ConfigError(
                "data.false_texts has neither pairs nor a file of them; give "
                "data.false_texts.pairs=[[clock,mirror]] or data.false_texts.file=pairs.csv"
            )

    def from_training(self, items: Sequence[Item]) -> OfReplies:
        """What is not true of each view of an item; the file is read now."""
        pairs = [*self.pairs, *(_pairs_of(self.file) if self.file else ())]
        return self._checked(_Partners(pairs), items)


class _Partners:
    """Replies in which a word is swapped for one of its partners."""

    def __init__(self, pairs: Iterable[Sequence[str]]) -> None:
        self.partners: dict[str, list[str]] = {}
        for one, other in pairs:
            for word, partner in ((one, other), (other, one)):
                self.partners.setdefault(word.lower(), []).append(partner.lower())
        self.forms = {form(word): word for word in self.partners for form in (plural, str)}
        longest_first = sorted(self.forms, key=len, reverse=True)
        words = "|".join(map(re.escape, longest_first))
        self.pattern = re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.IGNORECASE)

    def __call__(self, reply: str) -> Iterator[str]:
        places = [
            Place(word, *found.span())
            for found in self.pattern.finditer(reply)
            if (word := self.forms.get(found[0].lower()))  # case is ignored of ſ, too
        ]
        named = dict.fromkeys(place.name for place in places)
        for word in named:
            for partner in self.partners[word]:
                if partner not in named:
                    yield swapped(reply, [p for p in places if p.name == word], partner)


class CooccurringObjects(_Swapping):
    """An object of a reply is swapped for the one that most often comes with the reply's others.

    The other objects of the reply bring it along in the replies of training, and the reply does
    not name it: what a model that knows company alone would add. Among equals the more frequent
    one is taken, which also decides where there are no others. `vocabulary` is a file as
    `ObjectVocabulary.read` takes it, None the one that CHAIR uses here.

    Raises:
        ConfigError: if `at_most` is below 1.
    """

    def __init__(self, vocabulary: str | Path | None = None, at_most: int = 4) -> None:
        super().__init__(at_most)
        self.vocabulary = vocabulary

    def from_training(self, items: Sequence[Item]) -> OfReplies:
        """What is not true of each view of an item; the replies of training are counted now."""
        vocabulary = ObjectVocabulary.read(self.vocabulary)
        replies = Counter(view.reply for item in items for view in item.conversation.views)
        return self._checked(_Company.of(vocabulary, replies), items)


@dataclass(frozen=True)
class _Company:
    """How many texts name two objects (O,O), on the diagonal: one, by the vocabulary's order."""

    vocabulary: ObjectVocabulary
    number: Mapping[str, int]
    together: np.ndarray

    @classmethod
    def of(cls, vocabulary: ObjectVocabulary, texts: Mapping[str, int]) -> _Company:
        """Counted over texts that occur so often."""
        number = {name: at for at, name in enumerate(vocabulary.names)}
        together = np.zeros((len(number), len(number)), dtype=np.int64)
        for text, times in texts.items():
            named = list({number[name] for name in vocabulary.mentions(text)})
            together[np.ix_(named, named)] += times
        return cls(vocabulary, number, together)

    def __call__(self, reply: str) -> Iterator[str]:
        places = [Place(*place) for place in self.vocabulary.places(reply)]
        named = dict.fromkeys(self.number[place.name] for place in places)
        seen = self.together.diagonal()
        for name in named:
            others = [other for other in named if other != name]
            # the second decides among equals
            score = self.together[others].sum(axis=0) * (seen.max() + 1) + seen
            score[[*named]] = 0
            if score.max() > 0:
                partner = self.vocabulary.names[int(score.argmax())]
                own = [place for place in places if self.number[place.name] == name]
                yield swapped(reply, own, partner)


def swapped(text: str, places: Sequence[Place], name: str) -> str:
    """A text with another name in some places: plural and capital as there, its article suited."""
    for _, start, end in reversed(places):
        old = text[start:end]
        last = old.split()[-1].lower()
        new = plural(name) if singular(last) != last else name
        new = new[0].upper() + new[1:] if old[0].isupper() else new
        text = _suited(text[:start], new) + new + text[end:]
    return text


def _suited(before: str, noun: str) -> str:
    """A text that ends in a or an, the one of the two that `noun` takes; any other as it is."""
    if not (found := _ARTICLE.search(before)):
        return before
    article = found[1][0] + ("n" if noun[0].lower() in "aeiou" else "")
    return before[: found.start()] + article + found[2]


def _is_pair(words: Sequence[object]) -> bool:
    """Whether these are two different words."""
    texts = [word.lower() for word in words if isinstance(word, str) and re.search(r"\w", word)]
    return len(words) == len(texts) == len({*texts}) == 2


def _pairs_of(path: Path) -> list[tuple[str, str]]:
    """The pairs of a table with the columns `word` and `partner`.

    Raises:
        DataError: naming file, row and column.
    """
    if not path.is_file():
        raise DataError(
            f"data.false_texts.file: {path} does not exist; give a table with the columns word "
            "and partner, a pair a row"
        )
    pairs = []
    for row in read_rows(path):
        row.check()
        pairs.append((row.text("word"), row.text("partner")))
        if not _is_pair(pairs[-1]):
            raise row.error(f"word and partner must be two different words, got {pairs[-1]}")
    if not pairs:
        raise DataError(f"{path} holds no pairs; give a row of word and partner for each")
    return pairs
