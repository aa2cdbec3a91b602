"""Values of annotations: which are texts, numbers, times or lists, and which stand for none.

JSON and tables bring values of every type under every key. What is not of the type asked for is
refused, and never becomes the text of its Python form, such as "['a dog', 'one dog']".
"""

from __future__ import annotations

import ast
import json
import math
import re
import reprlib
import warnings
from collections.abc import Callable
from typing import Any

# Frames or seconds of a film; a day at 60 frames a second is half of it.
MOST = 10_000_000

# How tables and Python write that there is no value. "none" and "na" are words.
MARKS = frozenset(
    ("NaN", "nan", "NAN", "-nan", "-NaN", "None", "NULL", "Null", "null", "N/A", "n/a", "NA",
     "#N/A", "#NA", "<NA>", "NaT")
)  # fmt: skip
NO_NUMBER = re.compile(r"[^-+.\deE]")  # float() would take 1_000, Infinity and other digits
COMMA = re.compile(r"(\d+),(\d{1,2}|\d{4,})")  # a decimal comma; 1,500 may be thousands
CLOCK = re.compile(r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d(?:[.,]\d{1,9})?)")
# How a text begins that may be blank, or the Python form of a list, dict, tuple or bytes.
SUSPECT = re.compile(r"[\[{(]|b['\"]|\s|$")
MOST_BRACKETS = 100  # Python's own parser may die of thousands

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def shown(value: Any) -> str:
    """A value as messages show it, cut where it is long."""
    return repr(value) if type(value) is str and len(value) < 80 else _short.repr(value)


def absent(value: Any) -> bool:
    """Whether a value stands for none: null, the empty text, or NaN, as tables have them."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def as_text(value: Any, *, marks: bool = False) -> str:
    """The text a value is: itself, or the digits of a number that can be written in one way.

    With `marks` a text may be what tables write for none.

    Raises:
        ValueError: saying what came and what is expected.
    """
    if type(value) is str:
        if not value.isprintable() or SUSPECT.match(value):
            _refuse_no_text(value)
        if value in MARKS and not marks:
            raise ValueError(
                f"must be a text, got {value!r}, which tables write where there is none; write "
                "other words, or remove the row"
            )
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        # 3.0 may stand for 3, as in a table with gaps, and 1e22 for a text of 23 digits
        if value % 1 and "e" not in (digits := repr(value)):
            return digits
        raise ValueError(
            f"must be a text, got the number {value!r}; put it in quotes as it is meant"
        )
    raise ValueError(f"must be a text, got {shown(value)}")


def as_number(value: Any) -> float:
    """The number a value is or spells, NaN if none; 2,5 is 2.5."""
    if isinstance(value, str):
        value = value.strip()
        if decimal := COMMA.fullmatch(value):
            value = f"{decimal[1]}.{decimal[2]}"
        if NO_NUMBER.search(value) or not value.isascii():
            return math.nan
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def as_seconds(value: Any) -> float:
    """The seconds a number or a clock time stands for, NaN if none."""
    if not (isinstance(value, str) and (clock := CLOCK.fullmatch(value.strip()))):
        return as_number(value)
    hours, minutes, seconds = clock.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))


def is_clock_time(value: Any) -> bool:
    """Whether a value is a time such as 1:02:03.5."""
    return isinstance(value, str) and CLOCK.fullmatch(value.strip()) is not None


def as_list(value: Any, split: str | None = None) -> Any:
    """The list a value is, or that its text writes out; other texts alone, or cut at `split`."""
    if not isinstance(value, str):
        return [value] if isinstance(value, int | float) and split is None else value
    if value[:1] == "[":
        for parse in (json.loads, ast.literal_eval):
            written = _written_out(value, parse)
            if isinstance(written, list) and written and all(type(o) is str for o in written):
                return written
    return [value] if split is None else [part for part in value.split(split) if part]


def _refuse_no_text(text: str) -> None:
    """Refuse a text without a sign that is seen, with a NUL, or of a Python form.

    Raises:
        ValueError: saying what came.
    """
    if "\0" in text:
        raise ValueError(f"holds a NUL character: {shown(text)}; remove it")
    if not any(sign.isprintable() and not sign.isspace() for sign in text):
        raise ValueError(f"is blank: {shown(text)}; write some words, or remove the row")
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError(f"holds bytes that are no UTF-8: {shown(text)}; save it as UTF-8 text")
    if _is_python_form(text):
        raise ValueError(
            f"must be a text, got what Python writes of another value: {shown(text)}; write the "
            "words alone"
        )


def _is_python_form(text: str) -> bool:
    """Whether a text is how Python alone writes a list, dict, tuple or bytes, or an empty one."""
    if not SUSPECT.match(text) or text[-1] not in "]})'\"":
        return False
    value = _written_out(text, ast.literal_eval)
    of_python = isinstance(value, list | dict | tuple | set | bytes) and repr(value) == text
    # "[1.5, 3]" and {"label": "dog"} are answers that some models are to give
    return of_python and not _written_out(text, json.loads)


def _written_out(text: str, parse: Callable[[str], Any]) -> Any:
    """What a text writes out, None if nothing."""
    if sum(map(text.count, "[{(")) > MOST_BRACKETS:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python does not know
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return None
