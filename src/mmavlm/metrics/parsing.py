"""What an answer says: yes or no, an order of two actions, letters of options.

One strict reading serves every benchmark, and one for each that has published its own, so that
numbers can stand beside those it printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

from mmavlm.core.errors import ConfigError
from mmavlm.core.options import BEHIND_LABEL, denies

Parsing = Literal["strict", "pope", "eventhallusion", "elv", "videohallucer", "vidhalluc"]

NO, YES, UNPARSED = 0, 1, -1  # what an answer is read as
ORDERS = ("AB", "BA")  # of two actions (VidHalluc)
KINDS = ("ground_truth", "in_video", "out_video")  # the captions of a triplet (ELV-Halluc)
CAPTIONING = "captioning"  # the task whose answers are captions (AVHBench)

# A hyphen belongs to the word: no-one is not no.
_YES_OR_NO = re.compile(r"(?<![\w-])(yes|no)(?![\w-])", re.IGNORECASE)
_FIRST_WORD = re.compile(r"\W*(yes|no)(?![\w-])", re.IGNORECASE)
_VERDICTS = {"yes": YES, "no": NO}

_PAIR = re.compile(r"(?<![\w-])(AB|BA)(?![\w-])")
_ACTION = re.compile(r"(?<![\w-])(?:action\s+([ab])(?!\w)|([AB])(?=\s*(?:[,.):;>→-]|$|\s)))", re.I)
_CUE = re.compile(r"\b(?:option|choice|letter)s?\s+$", re.IGNORECASE)
_BEHIND = re.compile(BEHIND_LABEL)
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
    - `vidhalluc`: what stands before the first full stop or comma, in the same way
      (Vid-Halluc/VidHalluc, eval_bqa.py).

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


def parse_letters(text: str, choices: Mapping[str, str], parsing: str = "strict") -> frozenset[str]:
    """The options an answer names, by the letters of `choices` (letter → text); empty if none.

    Taken are letters that are all of it (B, or BD, or B and D), else letters marked as options
    ("B. they jump", "(B)"), else letters that are words of their own ("I think B and C"), else
    options whose text the answer holds. "A dog barks" names none, and where something is denied
    ("not B") words do not count. With `parsing` "vidhalluc" any A to D that is a word counts, "A
    dog barks" included, else the first option whose text is there (Vid-Halluc/VidHalluc,
    eval_mcq.py).
    """
    plain = text.strip()
    lower = plain.casefold()
    held = [name for name, option in choices.items() if option.casefold() in lower]
    if parsing == "vidhalluc":
        return frozenset(re.findall(r"\b[A-D]\b", plain) or held[:1])
    letter = f"[{''.join(map(re.escape, choices))}]"
    if re.fullmatch(rf"\W*{letter}(?:(?:\W|and)*{letter})*\W*", plain):
        return frozenset(re.findall(letter, plain))
    marked = re.findall(rf"(?<![\w'-])({letter})(?=[.):])", plain)
    return frozenset(marked or _letters_as_words(plain, letter) or held)


def _letters_as_words(text: str, letter: str) -> list[str]:
    """Letters that are words of their own, unless they are A or I and read as words of English."""
    if denies(text):
        return []
    alone = rf"(?<![\w'-]){letter}(?![\w'-])"
    found = []
    for listed in re.finditer(rf"{alone}(?:(?:\s*(?:,|&|/|\band\b|\bor\b))+\s*{alone})*", text):
        letters = re.findall(alone, listed[0])
        before, behind = text[: listed.start()], text[listed.end() :]
        if not {"A", "I"}.issuperset(letters) or _CUE.search(before) or _BEHIND.match(behind):
            found += letters
    return found


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


def _vidhalluc(text: str) -> int:
    return _VERDICTS.get(re.split("[.,]", text)[0].strip().lower(), UNPARSED)


_READERS: dict[str, Callable[[str], int]] = {
    "strict": _strict,
    "pope": _pope,
    "eventhallusion": _eventhallusion,
    "elv": _elv,
    "videohallucer": _videohallucer,
    "vidhalluc": _vidhalluc,
}
