"""Which objects a text names: a vocabulary with synonyms, phrases and plurals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from typing_extensions import Self

from mmavlm.core.errors import DataError

_WORD = re.compile(r"[a-z]+", re.IGNORECASE | re.ASCII)
_IRREGULAR = {
    "children": "child", "men": "man", "women": "woman", "feet": "foot", "teeth": "tooth",
    "geese": "goose", "mice": "mouse", "oxen": "ox", "people": "people", "cattle": "cattle",
    "knives": "knife", "wives": "wife", "lives": "life", "loaves": "loaf", "calves": "calf",
    "leaves": "leaf", "shelves": "shelf", "wolves": "wolf", "halves": "half", "scarves": "scarf",
    "buses": "bus", "gases": "gas", "lenses": "lens", "cookies": "cookie", "movies": "movie",
    "brownies": "brownie", "shoes": "shoe", "canoes": "canoe", "axes": "axe",
}  # fmt: skip
_PLURALS = {one: many for many, one in _IRREGULAR.items()} | {
    "person": "people", "potato": "potatoes", "tomato": "tomatoes",
    "deer": "deer", "fish": "fish", "sheep": "sheep",
}  # fmt: skip
_SIBILANTS = ("ches", "shes", "sses", "xes", "zes")


def singular(word: str) -> str:
    """A lower-case English noun without its plural ending: boxes → box, berries → berry.

    Words that end in ss, us or is are left as they are. Any other text comes back much as it was,
    since only words of a vocabulary are looked for.
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith(("men", "women")) and len(word) > 4:
        return word[:-2] + "an"
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(_SIBILANTS):
        return word[:-2]
    if word.endswith("oes") and len(word) > 4:
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


def plural(noun: str) -> str:
    """A lower-case English noun, or phrase that ends in one, in its plural: box → boxes.

    `singular` takes its last word back.
    """
    *before, word = noun.split(" ")
    if word in _PLURALS:
        word = _PLURALS[word]
    elif singular(word) != word:
        pass  # such as scissors
    elif word.endswith("man"):
        word = word[:-2] + "en"
    elif word.endswith("y") and word[-2:-1] not in "aeiou":
        word = word[:-1] + "ies"
    else:
        word += "es" if (word + "es").endswith(_SIBILANTS) else "s"
    return " ".join([*before, word])


class ObjectVocabulary:
    """Objects by name, each with the words and phrases it goes by.

    `synonyms` maps a name to other words for it; all may be phrases, singular or plural.
    `uncounted` lists the names of what is not counted, such as rice. `SoundVocabulary` is the same
    for what is heard.

    Raises:
        DataError: if two objects go by the same word, or there is none.
    """

    built_in = "objects.txt"

    def __init__(
        self, synonyms: Mapping[str, Sequence[str]], uncounted: Iterable[str] = ()
    ) -> None:
        if not synonyms:
            raise DataError("a vocabulary without objects; give at least one")
        self.names = tuple(synonyms)
        self.uncounted = frozenset(uncounted)
        self._phrases: dict[tuple[str, ...], str] = {}
        for name, others in synonyms.items():
            for text in (name, *others):
                words = _words(text)
                if not words:
                    raise DataError(f"the object {name!r} has a synonym without letters: {text!r}")
                if self._phrases.setdefault(words, name) != name:
                    raise DataError(
                        f"{text!r} stands for {self._phrases[words]!r} and for {name!r}; "
                        "a word may stand for one object"
                    )
        self._longest = max(map(len, self._phrases))

    @classmethod
    def read(cls, path: str | Path | None = None) -> Self:
        """The vocabulary of a text file; None takes the built-in one, which is our own list.

        A line is `name: synonym, synonym`; a star before the name marks what is not counted; what
        begins with # is a comment.

        Raises:
            DataError: naming file and line of what cannot be used.
        """
        place = "the built-in vocabulary" if path is None else str(path)
        if path is None:
            text = files("mmavlm.metrics").joinpath(cls.built_in).read_text(encoding="utf-8")
        elif not Path(path).is_file():
            raise DataError(f"vocabulary {path} does not exist; give a text file, an object a line")
        else:
            try:
                text = Path(path).read_text(encoding="utf-8-sig")
            except UnicodeDecodeError as error:
                raise DataError(f"{path} is not UTF-8: {error}; save it as UTF-8 text") from error
        synonyms: dict[str, list[str]] = {}
        uncounted = set()
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, _, others = line.partition(":")
            starred, name = name.strip().startswith("*"), " ".join(name.strip("* \t").split())
            if not _words(name):
                raise DataError(f"{place}, line {number}: no name before the colon in {line!r}")
            if name in synonyms:
                raise DataError(f"{place}, line {number}: {name!r} occurs twice")
            synonyms[name] = [other.strip() for other in others.split(",") if other.strip()]
            if starred:
                uncounted.add(name)
        try:
            return cls(synonyms, uncounted)
        except DataError as error:
            raise DataError(f"{place}: {error}") from None

    def mentions(self, text: str) -> list[str]:
        """The objects a text names, in order, as often as it does; longer phrases come first.

        "hot dog" names a sausage and no dog, where the vocabulary has the phrase.
        """
        return [name for name, _, _ in self.places(text)]

    def places(self, text: str) -> Iterator[tuple[str, int, int]]:
        """The objects a text names, each with its first letter's place and that behind its last."""
        found = [*_WORD.finditer(text)]
        words, at = tuple(singular(word[0].lower()) for word in found), 0
        while at < len(words):
            for length in range(min(self._longest, len(words) - at), 0, -1):
                if name := self._phrases.get(words[at : at + length]):
                    yield name, found[at].start(), found[at + length - 1].end()
                    at += length
                    break
            else:
                at += 1

    def question(self, name: str) -> str:
        """Whether there is such an object in the video, as a question."""
        if name not in self.uncounted and singular(name.split()[-1]) != name.split()[-1]:
            return f"Are there {name} in the video?"
        return f"Is there {self.with_article(name)} in the video?"

    def with_article(self, name: str) -> str:
        """`a dog`, `an apple`, `rice`."""
        if name in self.uncounted:
            return name
        return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


class SoundVocabulary(ObjectVocabulary):
    """Sound events by name, each with the words and phrases it goes by.

    `uncounted` lists the names of those without an article, such as barking.

    Raises:
        DataError: if two events go by the same word, or there is none.
    """

    built_in = "sounds.txt"

    def question(self, name: str) -> str:
        """Whether such a sound is heard in the video, as a question."""
        return f"Is there a sound of {self.with_article(name)} in the video?"


def _words(text: str) -> tuple[str, ...]:
    return tuple(singular(word.lower()) for word in _WORD.findall(text))
