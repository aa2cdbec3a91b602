"""Rows of annotations by columns: which are plain, so that items need not be made of each.

A row is plain if reading it value by value (see `rows`) would refuse and change nothing. Of others
nothing is said here: they are read value by value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmavlm.data.readers.clean_up import clean_captions
from mmavlm.data.readers.json_values import HALF
from mmavlm.data.readers.rows import CLOCK_NAMES, Row
from mmavlm.data.readers.values import MARKS, MOST
from mmavlm.data.sources import VIDEO_SUFFIXES

Mask = NDArray[np.bool_]

NO_TEXT = r"^(?:[\[{(]|b['\"]|\s*$)"  # what `values.as_text` looks at once more, or refuses
# Names that a file system takes as they are: parts with slashes between them, and no steps up.
NO_NAME = r"[^ -~]|[\\:]|^/|/$|//|(?:^|/)\.\.?(?:/|$)|^$"
LONGEST_NAME = 240
SUFFIXED = rf"(?i)[^/](?:{'|'.join(map(re.escape, VIDEO_SUFFIXES))})$"
FIRST_PRINTED, LAST_PRINTED = ord(" "), ord("~")
DECIMAL = r"^\d{1,7}(?:\.\d{1,9})?$"


def columns(rows: Sequence[Row], *keys: str) -> list[list[Any]]:
    """What stands under each of the keys, None where it is absent."""
    values: list[Any] = [row.values for row in rows]
    return [list(map(dict.get, values, repeat(key))) for key in keys]


def without(rows: Sequence[Row], keys: Sequence[str]) -> Mask:
    """Which rows say nothing under the keys."""
    silent = np.ones(len(rows), bool)
    for values in columns(rows, *keys):
        if {*map(type, values)} != {type(None)}:
            silent &= np.array([value is None or value == "" for value in values], bool)
    return silent


def texts(values: Sequence[Any]) -> tuple[pa.StringArray, Mask]:
    """Texts as they stand, and which of the values are such."""
    plain = np.ones(len(values), bool)
    if {*map(type, values)} - {str}:
        plain = np.array([type(value) is str for value in values], bool)
        values = [value if type(value) is str else "" for value in values]
    try:
        array = pa.array(values, pa.string())
    except UnicodeEncodeError:  # halves of signs
        values = ["" if HALF.search(value) else value for value in values]
        array = pa.array(values, pa.string())
    if not _is_plain_ascii(array):
        plain &= np.fromiter(map(str.isprintable, values), bool, len(values))
    return array, plain & ~_matches(array, NO_TEXT) & ~_bools(pc.is_in(array, _MARKS))


def texts_or(
    values: Sequence[Any], others: Callable[[], Sequence[str]]
) -> tuple[pa.StringArray, Mask]:
    """Texts, or `others` where there is none; which of the values are such, or none."""
    if {*map(type, values)} == {type(None)}:
        return pa.array(others(), pa.string()), np.ones(len(values), bool)
    array, plain = texts(values)
    if plain.all():
        return array, plain
    absent = np.array([value is None or value == "" for value in values], bool)
    return pc.if_else(absent, pa.array(others(), pa.string()), array), plain | absent


def places(names: pa.StringArray, rows: Sequence[Row]) -> list[str]:
    """The ids of rows that have none of their own: a name, and where the row stands."""
    return [f"{name}, {row.place}" for name, row in zip(names.to_pylist(), rows, strict=True)]


def words(values: Sequence[Any], max_words: int = 50) -> tuple[pa.StringArray, Mask]:
    """Texts as MA-LMM cleans them up (see `clean_captions`), and which of the values are such."""
    array, plain = texts(values)
    cleaned = pa.array(clean_captions(array.to_pylist(), max_words), pa.string())
    return cleaned, plain & _bools(pc.not_equal(cleaned, ""))


def names(values: Sequence[Any]) -> tuple[pa.StringArray, Mask]:
    """Names of files below a folder (see `sources.inside`), and which of the values are such."""
    array, plain = texts(values)
    short = _bools(pc.less_equal(pc.binary_length(array), LONGEST_NAME))
    return array, plain & short & ~_matches(array, NO_NAME)


def with_suffix(sources: pa.StringArray) -> pa.StringArray:
    """Names of films, with the usual suffix where they have none (see `sources.film_at`)."""
    whole = pc.match_substring_regex(sources, SUFFIXED)
    return pc.if_else(whole, sources, pc.binary_join_element_wise(sources, VIDEO_SUFFIXES[0], ""))


def whole(values: Sequence[Any]) -> tuple[pa.Int32Array, Mask]:
    """Whole numbers from 1 on, and which of the values are such."""
    plain = np.array([type(value) is int and 1 <= value <= MOST for value in values], bool)
    found = [value if good else None for value, good in zip(values, plain, strict=True)]
    return pa.array(found, pa.int32()), plain


def stretches(rows: Sequence[Row]) -> tuple[pa.DoubleArray, pa.DoubleArray, Mask]:
    """Seconds at which stretches start and end, null where that is not said; which rows say so."""
    starts, ends = columns(rows, "start_s", "end_s")
    start_s, start_plain = _seconds(starts)
    end_s, end_plain = _seconds(ends)
    ordered = ~(np.isfinite(end_s) & (end_s <= np.nan_to_num(start_s)))
    clocks = [not CLOCK_NAMES.isdisjoint(row.values) for row in rows]
    plain = start_plain & end_plain & ordered & ~np.array(clocks, bool)
    start_s[start_s == 0] = np.nan
    return _or_null(start_s), _or_null(end_s), plain


def _seconds(values: Sequence[Any]) -> tuple[NDArray[np.float64], Mask]:
    """Seconds, NaN where there are none; and which values are plain numbers, or none."""
    found = np.full(len(values), np.nan)
    if {*map(type, values)} == {type(None)}:
        return found, np.ones(len(values), bool)
    plain = np.zeros(len(values), bool)
    written = pa.array([value if type(value) is str else None for value in values])
    decimal = pc.fill_null(pc.match_substring_regex(written.cast(pa.string()), DECIMAL), False)
    for at, (value, spelt) in enumerate(zip(values, decimal.to_pylist(), strict=True)):
        if value is None or value == "":
            plain[at] = True
        elif spelt or type(value) in (int, float):
            number = float(value)
            if 0 <= number <= MOST:
                found[at], plain[at] = number, True
    return found, plain


def _or_null(numbers: NDArray[np.float64]) -> pa.DoubleArray:
    return pa.array(numbers, pa.float64(), from_pandas=True)


def _matches(array: pa.StringArray, pattern: str) -> Mask:
    return _bools(pc.match_substring_regex(array, pattern))


def _is_plain_ascii(array: pa.StringArray) -> bool:
    """Whether all signs are printed, and ASCII."""
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int32)[[array.offset, array.offset + len(array)]]
    signs = np.frombuffer(data or b"", np.uint8)[slice(*ends)]
    return not len(signs) or bool(signs.min() >= FIRST_PRINTED and signs.max() <= LAST_PRINTED)


def _bools(array: pa.BooleanArray) -> Mask:
    return np.asarray(array.to_numpy(zero_copy_only=False), bool)


_MARKS = pa.array(sorted(MARKS))
