"""JSON as values: keys that are there twice, halves of characters and endless numbers are seen."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

# What json raises: bad syntax, numbers of thousands of digits, brackets nested thousands deep.
NOT_JSON = (ValueError, RecursionError)
# An escape may stand for half of a character, such as an emoji that was cut off.
HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
HALF = re.compile("[\ud800-\udfff]")
MOST_DIGITS = 4000  # Python takes no whole number of many more


def loads(text: str) -> Any:
    """What a JSON text holds, with whole characters.

    Raises:
        ValueError: if it is not JSON.
        RecursionError: if it is nested thousands deep.
    """
    try:
        value, end = _DECODERS[0].raw_decode(text)
    except (ValueError, RecursionError):
        value, end = None, 0
    if not end or (end < len(text) and not text[end:].isspace()):
        value = decoded(text)  # which skips what stands before, and complains
    return whole_characters(value) if "\\u" in text and HALF_ESCAPED.search(text) else value


class Doubled(dict[str, Any]):
    """An object that has a key twice, of which JSON would keep the last without a word."""

    again: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    doubled = Doubled(found)
    count = Counter(key for key, _ in pairs)
    doubled.again = next(key for key in found if count[key] > 1)
    return doubled


def _whole(digits: str) -> int | float:
    """A whole number; one beyond all that are used is infinite, and refused by its key."""
    return int(digits) if len(digits) <= MOST_DIGITS else math.inf


_DECODERS = (
    json.JSONDecoder(object_pairs_hook=_object),
    json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole),  # slower
)


def decoded(text: str, at: int | None = None) -> Any:
    """What a JSON text holds, or what the value `at` a place holds, and where that ends.

    Raises:
        ValueError: if it is not JSON, or nested thousands deep.
    """
    for decoder in _DECODERS:
        try:
            return decoder.decode(text) if at is None else decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            raise
        except RecursionError:
            raise ValueError("brackets are nested too deep") from None
        except ValueError:  # a number of thousands of digits
            continue
    raise AssertionError("all numbers can be read")


def whole_characters(value: Any) -> Any:
    """The value with U+FFFD for halves of characters, which neither tokenizers nor files take."""
    if isinstance(value, str):
        return HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [whole_characters(one) for one in value]
    if isinstance(value, dict):
        return {whole_characters(key): whole_characters(one) for key, one in value.items()}
    return value


def pairs_of(text: str) -> list[tuple[str, Any]]:
    """Keys and values of the object that a JSON text holds, in their order, each as often as it is.

    Raises:
        ValueError: if it is not JSON.
        RecursionError: if it is nested thousands deep.
    """
    last: list[tuple[str, Any]] = []

    def outermost(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal last
        last = pairs
        return _object(pairs)

    json.JSONDecoder(object_pairs_hook=outermost).decode(text)
    return last
