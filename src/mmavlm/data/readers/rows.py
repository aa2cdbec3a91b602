"""One row of an annotation file: its values, read and checked, and its place for error messages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmavlm.clean_up import clean_caption
from mmavlm.data.sources import inside
from mmavlm.errors import DataError
from mmavlm.options import Options, Style, read_options

# Frames or seconds of a film; a day at 60 frames a second is half of it.
MOST = 10_000_000


@dataclass(frozen=True)
class Row:
    """One row of an annotation file and where it stands."""

    path: Path
    place: str
    values: Mapping[str, Any]

    def need(self, key: str) -> Any:
        """The value of a key that must be there.

        Raises:
            DataError: naming file, row, key and the keys that came.
        """
        value = self.values.get(key)
        if absent(value):
            raise self.error(
                f"key {key!r} is missing or empty; the row has {sorted(map(str, self.values))}"
            )
        return value

    def number(self, key: str) -> float | None:
        """A number of at least 0, or None where the key is absent or empty.

        Raises:
            DataError: naming file, row, key and what came.
        """
        value = self.values.get(key)
        if value is None or value == "":
            return None
        number = _as_number(value)
        if not 0 <= number < math.inf:
            raise self.error(f"{key!r} must be a number of at least 0, got {value!r}")
        return number

    def whole(self, key: str, *, cut: bool = False) -> int:
        """A whole number from 1 to `MOST`; with `cut` a fraction behind it is dropped.

        Raises:
            DataError: naming file, row, key and what came.
        """
        value = self.need(key)
        number = _as_number(value)
        if not 1 <= number <= MOST or (number != int(number) and not cut):
            whole = "number" if cut else "whole number"
            raise self.error(
                f"{key!r} must be a {whole} of at least 1, got {value!r} (at most {MOST})"
            )
        return int(number)

    def text(self, key: str) -> str:
        """A text, as it stands; a number is taken for one.

        Raises:
            DataError: naming file, row, key and what came.
        """
        value = self.need(key)
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise self.error(f"{key!r} must be a text, got {value!r}")
        return str(value)

    def name(self, key: str, other: str) -> str:
        """A text, or `other` where the key is absent or empty; 0 is a name."""
        value = self.values.get(key)
        return other if absent(value) else str(value)

    def words(self, key: str, max_words: int = 50) -> str:
        """A text as MA-LMM cleans it up (see `clean_caption`).

        Raises:
            DataError: naming file, row and key, if it is missing or no word is left.
        """
        raw = self.text(key)
        if cleaned := clean_caption(raw, max_words):
            return cleaned
        raise self.error(f"{key!r} holds no words: {raw!r}; write some, or remove the row")

    def options(self, key: str, style: Style, right: str) -> tuple[Options, int] | None:
        """What there is to choose from, and which of it is right; None where the key is absent.

        In a csv the texts have | in between.

        Raises:
            DataError: naming file, row and what came.
        """
        value = self.values.get(key)
        if value is None or value == "":
            return None
        texts = value.split("|") if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(t, str | int | float) for t in texts):
            raise self.error(f"{key!r} must be a list of texts, got {value!r}")
        with self.placed():
            return read_options([str(text).strip() for text in texts], style, right)

    def stretch_s(self, start: str = "start_s", end: str = "end_s") -> tuple[float, float | None]:
        """The seconds under `start` (0 where absent) and `end` (None where absent), in order.

        Raises:
            DataError: naming file, row and what came.
        """
        start_s, end_s = self.number(start) or 0.0, self.number(end)
        if end_s is not None and end_s <= start_s:
            raise self.error(f"{end} must be after {start}, got {start_s:g} to {end_s:g}")
        return start_s, end_s

    def inner(self, key: str) -> Row:
        """The object under a key, as a row of its own.

        Raises:
            DataError: naming file, row, key and what came.
        """
        place = f"{self.place}, {key!r}"
        return Row(self.path, place, as_object(self.path, place, self.need(key)))

    def below(self, root: Path, name: str) -> Path:
        """`root / name`, a name of the row's (see `sources.inside`).

        Raises:
            DataError: naming file, row and name, if it leads out or no file can have it.
        """
        with self.placed():
            return inside(root, name)

    @contextmanager
    def placed(self) -> Iterator[None]:
        """DataErrors from within say where the row stands.

        Raises:
            DataError: naming file and row.
        """
        try:
            yield
        except DataError as error:
            raise self.error(str(error)) from None

    def error(self, what: str) -> DataError:
        """A DataError that says where the row stands."""
        return DataError(f"{self.path}, {self.place}: {what}")


def absent(value: Any) -> bool:
    """Whether a value stands for none: null, the empty text, or NaN, as tables have them."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _as_number(value: Any) -> float:
    """The number a value is or spells, NaN if none."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def as_object(path: Path, place: str, values: Any) -> dict[str, Any]:
    """The values of a row, if they are keys with values.

    Raises:
        DataError: naming file, place and what came.
    """
    if not isinstance(values, dict):
        raise DataError(f"{path}, {place} must be a JSON object, got {type(values).__name__}")
    return values
