"""Questions with options: how these are asked, and which of them a free answer names."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mmavlm.core.errors import ConfigError, DataError

Style = Literal["letters", "numbers", "texts"]

FIELD = "{options}"  # where a prompt takes them
MOST = len(string.ascii_uppercase)

_OUTER = string.whitespace + string.punctuation
_NEGATION = re.compile(r"\b(?:not|no|none|never|neither|nor|cannot|except)\b|n't\b")
_CUE = r"\b(?:answer|option|choice|letter|number)(?:\s+(?:is|should\s+be|would\s+be))?\W{0,3}?"
# What may follow a label, so that "answer is a dog", "2 dogs", "1.5" and "3:30" hold none.
BEHIND_LABEL = r"(?=\s*$|\s*[.,;:!?)\]\"'*](?!\w)|\s+(?:is|because|since|as|seems|fits|matches)\b)"


def check_style(style: str, setting: str) -> Style:
    """The style, if there is such a one.

    Raises:
        ConfigError: naming the setting.
    """
    if style not in get_args(Style):
        raise ConfigError(f"{setting}={style!r} is unknown; choose {', '.join(get_args(Style))}")
    return style  # type: ignore[return-value]  # just checked


@dataclass(frozen=True)
class Options:
    """The texts to choose from, and how an answer is asked for: by letter, number or text.

    Raises:
        DataError: if there are fewer than two or more than 26, or two that read alike.
    """

    texts: tuple[str, ...]
    style: Style = "letters"

    def __post_init__(self) -> None:
        if not 2 <= len(self.texts) <= MOST:
            raise DataError(f"a question needs 2 to {MOST} options, got {len(self.texts)}")
        folded = [_fold(text) for text in self.texts]
        if "" in folded or len({*folded}) < len(folded):
            raise DataError(
                f"options must be texts of which no two read alike, got {list(self.texts)}"
            )

    @property
    def answers(self) -> tuple[str, ...]:
        """What the answer is if an option is right: A, B, …; 1, 2, …; or its text."""
        if self.style == "texts":
            return self.texts
        return tuple(_label(i, self.style) for i in range(len(self.texts)))

    def ask(self, prompt: str) -> str:
        """The prompt with the options behind it, or where it says `{options}`."""
        if self.style == "texts":
            listed = f"Options: {', '.join(self.texts)}"
        else:
            pairs = zip(self.answers, self.texts, strict=True)
            listed = f"Options: {' '.join(f'({label}) {text}' for label, text in pairs)}"
        return prompt.replace(FIELD, listed) if FIELD in prompt else f"{prompt} {listed}"

    def index(self, answer: str) -> int | None:
        """The option a free answer names, or None if it names none, or more than one.

        It may name a letter or a number, whatever was asked for, or a text: as the whole answer
        ("b.", "(2)"), in front ("B. a dog"), behind a cue ("the answer is B", "option 2"), in
        brackets ("I think (B)"), or, of a text, anywhere as whole words. Letter and text must
        agree. Where something is denied ("not a dog") only what stands alone or in front counts.
        Letters or numbers are no labels where they are themselves texts to choose from, unless
        they are what was asked for.
        """
        folded = _fold(answer)
        denied = denies(folded) and not any(denies(text) for text in self.texts)
        labels = {*self._in_front(answer)}
        named = {i for i, text in enumerate(self.texts) if _fold(text) == folded}
        if not denied:
            labels |= {*self._behind_a_cue(answer)}
            named = named or self._within(folded)
        found = labels or named
        agree = not (labels and named) or labels <= named
        return found.pop() if len(found) == 1 and agree else None

    def choose(self, answer: str) -> str:
        """What a free answer comes to, as one of `answers`, or nothing if it is unparsed."""
        index = self.index(answer)
        return "" if index is None else self.answers[index]

    def _in_front(self, answer: str) -> Iterator[int]:
        """The label that is the whole of an answer, or that stands in front, marked as one."""
        for at, label in self._labels():
            whole = rf"\W*{label}\W*"
            front = rf"\W*{label}(?:[.):](?!\w)|\s+[-–—]\s).*"
            if re.fullmatch(f"{whole}|{front}", answer, re.IGNORECASE | re.DOTALL):
                yield at

    def _behind_a_cue(self, answer: str) -> Iterator[int]:
        for at, label in self._labels():
            cued = rf"{_CUE}\b{label}\b{BEHIND_LABEL}"
            if re.search(rf"{cued}|(?<!\w)\({label}\)", answer, re.IGNORECASE):
                yield at

    def _labels(self) -> Iterator[tuple[int, str]]:
        """Option and label, for all that are labels here."""
        folded = [_fold(text) for text in self.texts]
        are_texts = {
            "letters": any(len(text) == 1 and text.isalpha() for text in folded),
            "numbers": any(text.isdecimal() for text in folded),
        }
        for style in ("letters", "numbers"):
            if style == self.style or not are_texts[style]:
                yield from ((i, _label(i, style)) for i in range(len(self.texts)))

    def _within(self, folded: str) -> set[int]:
        """The options whose texts are in an answer as whole words, and not in a longer one's."""
        spans = [
            (match.start(), match.end(), i)
            for i, text in enumerate(self.texts)
            for match in re.finditer(rf"(?<!\w){re.escape(_fold(text))}(?!\w)", folded)
        ]
        return {
            i
            for start, end, i in spans
            if not any(
                other_start <= start and end <= other_end and other_end - other_start > end - start
                for other_start, other_end, _ in spans
            )
        }


def read_options(texts: Sequence[str], style: Style, right: str) -> tuple[Options, int]:
    """Options, and which of them is the right answer: given as text, letter or number.

    Raises:
        DataError: if they cannot be asked, or the right one is none of them.
    """
    options = Options(tuple(texts), style)
    index = options.index(right)
    if index is None:
        raise DataError(f"the answer {right!r} is none of the options {list(texts)}")
    return options, index


def denies(text: str) -> bool:
    """Whether a text says that something is not so."""
    return _NEGATION.search(_fold(text)) is not None


def _label(index: int, style: str) -> str:
    return string.ascii_uppercase[index] if style == "letters" else str(index + 1)


def _fold(text: str) -> str:
    """The text as it is compared: no case, no signs around it, single spaces."""
    return " ".join(text.casefold().replace("’", "'").split()).strip(_OUTER)
