"""What an answer says: yes or no, an order of two actions, letters of options.

One strict reading serves every benchmark, and one for each that has published its own, so that
numbers can stand beside those it printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

from mmavlm.errors import ConfigError

Parsing = Literal["strict", "pope", "eventhallusion", "elv", "videohallucer"]

NO, YES, UNPARSED = 0, 1, -1  # what an answer is read as

# A hyphen belongs to the word: no-one is not no.
_YES_OR_NO = re.compile(r"(?<![\w-])(yes|no)(?![\w-])", re.IGNORECASE)
_FIRST_WORD = re.compile(r"\W*(yes|no)(?![\w-])", re.IGNORECASE)
_VERDICTS = {"yes": YES, "no": NO}

_PAIR = re.compile(r"(?<![\w-])(AB|BA)(?![\w-])")
_ACTION = re.compile(r"(?<![\w-])(?:action\s+([ab])(?!\w)|([AB])(?=\s*(?:[,.):;>→-]|$|\s)))", re.I)
_REVERSED = re.compile(r"\b(after|follows|preceded by)\b", re.IGNORECASE)


def parse_yes_no(text: str, parsing: str = "strict") -> int:
    """`YES`, `NO` or `UNPARSED`, as the given way of reading takes an answer.

    - `strict`: whole words, in any case. The first word decides if it is yes or no; otherwise the
      one of the two that occurs; an answer with both, or neither, is unparsed.
    - `pope`: of the first sentence, without commas, any word No, no or not means no, everything
      else yes (RUCAIBox/POPE, evaluate.py). Nothing is unparsed.
    - `eventhallusion`: what the answer starts with, whole word or not (Stevetich/EventHallusion,
      eval.py).
    - `elv`: yes if the letters "yes" occur anywhere, else no if "no" does (hlsv02/ELV-Halluc,
      eval.py): "I do not know" is no.
    - `videohallucer`: what stands before the first full stop must be yes or no, and nothing else
      (patrick-tssn/VideoHallucer, evaluation_utils.py).

    Raises:
        ConfigError: if the way of reading is unknown.
    """
    if parsing not in _READERS:
        raise ConfigError(f"parsing={parsing!r} is unknown; choose one of {', '.join(_READERS)}")
    return _READERS[parsing](text)


def says(word: str, text: str) -> bool:
    """Whether a text holds a word, in any case, at word boundaries."""
    return re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) is not None


def parse_order(text: str) -> str | None:
    """Which of two actions A and B comes first: "AB", "BA", or None if the answer tells no order.

    Understood are the letters in one word (AB), and two mentions of A and B in either order
    ("Action B, then Action A"), turned round where the words between say so ("A after B").
    """
    if pair := _PAIR.search(text.strip().upper()):
        return pair[1]
    mentions = list(_ACTION.finditer(text))
    letters = [(m[1] or m[2]).upper() for m in mentions]
    other = next((i for i, letter in enumerate(letters) if letter != letters[0]), None)
    if other is None:
        return None
    between = text[mentions[0].end() : mentions[other].start()]
    order = letters[0] + letters[other]
    return order[::-1] if _REVERSED.search(between) else order


def parse_letters(text: str, choices: Mapping[str, str]) -> frozenset[str]:
    """The options an answer names, by the letters of `choices` (letter → text); empty if none.

    Taken are letters that stand alone (B, or BD, or B and D), else letters marked as options
    ("B. they jump", "(B)"), else options whose text the answer holds. "A dog barks" names none.
    """
    letter = f"[{''.join(map(re.escape, choices))}]"
    plain = text.strip()
    if re.fullmatch(rf"\W*{letter}(?:(?:\W|and)*{letter})*\W*", plain):
        return frozenset(re.findall(letter, plain))
    if marked := re.findall(rf"(?<![\w'-])({letter})(?=[.):])", plain):
        return frozenset(marked)
    lower = plain.casefold()
    return frozenset(name for name, option in choices.items() if option.casefold() in lower)


def _strict(text: str) -> int:
    if first := _FIRST_WORD.match(text):
        return _VERDICTS[first[1].lower()]
    found = {match[1].lower() for match in _YES_OR_NO.finditer(text)}
    return _VERDICTS[found.pop()] if len(found) == 1 else UNPARSED


def _pope(text: str) -> int:
    words = text.split(".")[0].replace(",", "").split(" ")
    return NO if {"No", "not", "no"} & set(words) else YES


def _eventhallusion(text: str) -> int:
    starts = (said for word, said in _VERDICTS.items() if text.lower().startswith(word))
    return next(starts, UNPARSED)


def _elv(text: str) -> int:
    return next((said for word, said in _VERDICTS.items() if word in text.lower()), UNPARSED)


def _videohallucer(text: str) -> int:
    return _VERDICTS.get(text.split(".")[0].strip().lower(), UNPARSED)


_READERS: dict[str, Callable[[str], int]] = {
    "strict": _strict,
    "pope": _pope,
    "eventhallusion": _eventhallusion,
    "elv": _elv,
    "videohallucer": _videohallucer,
}
