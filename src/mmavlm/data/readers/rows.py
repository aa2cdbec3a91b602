"""One row of an annotation file: its values, read and checked, and its place for error messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmavlm.core.errors import DataError
from mmavlm.core.options import Options, Style, read_options
from mmavlm.data.readers.clean_up import clean_caption
from mmavlm.data.readers.json_values import Doubled
from mmavlm.data.readers.values import (
    MOST,
    absent,
    as_list,
    as_number,
    as_seconds,
    as_text,
    is_clock_time,
    shown,
)
from mmavlm.data.sources import inside

# Other names of the bounds of a stretch. What they hold has no unit, unless it is a clock time.
CLOCK_KEYS = {"start_s": ("start", "start_time"), "end_s": ("end", "end_time")}
CLOCK_NAMES = frozenset(name for names in CLOCK_KEYS.values() for name in names)


@dataclass(slots=True)  # not frozen, since that takes as long to make as the rest of a line
class Row:
    """One row of an annotation file and where it stands.

    Values are taken out by the methods below, which refuse what is of another type, so that no
    value becomes the text of its Python form. `broken` says why a row has no values.
    """

    path: Path
    place: str
    values: Mapping[str, Any]
    broken: str | None = None

    @classmethod
    def of(cls, path: Path, place: str, values: Any) -> Row:
        """The row of what a file holds at a place, broken if that is no object of distinct keys."""
        if type(values) is dict:
            return cls(path, place, values)
        if isinstance(values, Doubled):
            return cls(path, place, {}, f"key {values.again!r} is there twice; leave one")
        return cls(path, place, {}, f"must be a JSON object, got {type(values).__name__}")

    def check(self) -> None:
        """Refuse a row that has no values.

        Raises:
            DataError: naming file, row and the reason.
        """
        if self.broken is not None:
            # "line 3 is not JSON" and "entry 5 must be …" go on; a reason of its own is set apart
            goes_on = self.broken.startswith(("is ", "must "))
            raise DataError(f"{self.path}, {self.place}{' ' if goes_on else ': '}{self.broken}")

    def need(self, key: str) -> Any:
        """The value of a key that must be there.

        Raises:
            DataError: naming file, row, key and the keys that came.
        """
        value = self.values.get(key)
        if absent(value):
            self.check()
            raise self.error(
                f"key {key!r} is missing or empty; the row has {sorted(map(str, self.values))}"
            )
        return value

    def number(self, key: str) -> float | None:
        """A number from 0 to `MOST`, or None where the key is absent or empty.

        Raises:
            DataError: naming file, row, key and what came.
        """
        value = self.values.get(key)
        if absent(value):
            return None
        if not 0 <= (number := as_number(value)) <= MOST:
            raise self.error(f"{key!r} must be a number of at least 0, got {shown(value)}")
        return number

    def seconds(self, key: str) -> float | None:
        """Seconds, as a number or a clock time such as 1:02:03.5, or None where there are none.

        Raises:
            DataError: naming file, row, key and what came.
        """
        value = self.values.get(key)
        if value is None:
            others = CLOCK_KEYS.get(key, ())
            value = next((v for k in others if is_clock_time(v := self.values.get(k))), None)
        if absent(value):
            return None
        if not 0 <= (number := as_seconds(value)) <= MOST:
            raise self.error(
                f"{key!r} must be a number of at least 0, got {shown(value)}: seconds, or a clock "
                "time such as 1:02:03.5"
            )
        return number

    def moments_s(self, key: str) -> tuple[float, ...]:
        """Moments in seconds, of which there may be none.

        Raises:
            DataError: naming file, row, key and what came.
        """
        found = tuple(as_number(text) for text in self.texts(key, split="|") or ())
        if not all(0 <= moment <= MOST for moment in found):
            raise self.error(f"{key!r} must be a list of seconds, got {shown(self.values[key])}")
        return found

    def whole(self, key: str, *, cut: bool = False) -> int:
        """A whole number from 1 to `MOST`; with `cut` a fraction behind it is dropped.

        Raises:
            DataError: naming file, row, key and what came.
        """
        value = self.values.get(key)
        if type(value) is int and 1 <= value <= MOST:  # as in most files
            return value
        number = as_number(self.need(key))
        if not 1 <= number <= MOST or (number != int(number) and not cut):
            whole = "number" if cut else "whole number"
            raise self.error(
                f"{key!r} must be a {whole} of at least 1, got {shown(value)} (at most {MOST})"
            )
        return int(number)

    def text(self, key: str, real: Sequence[str] = ()) -> str:
        """A text, as it stands; a whole number, or a decimal one, is taken for its digits.

        Those of `real` are texts, whatever they say: a choice may be "None".

        Raises:
            DataError: naming file, row, key and what came.
        """
        value = self.values.get(key)
        if not value or type(value) is not str:  # most are texts, and need no other look
            value = self.need(key)
        return value if real and value in real else self._text(key, value)

    def texts(self, key: str, *, split: str | None = None) -> list[str] | None:
        """A list of texts, of which one may be given alone; None where the key is absent or empty.

        A list written as one text is taken for the list. With `split` other texts are lists with
        that sign in between, as a csv has them.

        Raises:
            DataError: naming file, row, key and what came.
        """
        value = self.values.get(key)
        if absent(value) or value == []:
            return None
        found = as_list(value, split)
        if not isinstance(found, list):
            texts = "a list of texts" if split else "a text, or a list of texts"
            raise self.error(f"{key!r} must be {texts}, got {shown(value)}")
        return [self._text(key, one) for one in found]

    def name(self, key: str, other: str) -> str:
        """A text, or `other` where the key is absent or empty; 0 is a name.

        Raises:
            DataError: naming file, row, key and what came.
        """
        value = self.values.get(key)
        return other if absent(value) else self._text(key, value)

    def words(self, key: str, max_words: int = 50) -> str:
        """A text as MA-LMM cleans it up (see `clean_caption`).

        Raises:
            DataError: naming file, row and key, if it is missing or no word is left.
        """
        raw = self.text(key)
        if cleaned := clean_caption(raw, max_words):
            return cleaned
        raise self.error(f"{key!r} holds no words: {shown(raw)}; write some, or remove the row")

    def choices(self, key: str) -> list[str] | None:
        """The texts there are to choose from, None where the key is absent; "None" may be one.

        In a csv the texts have | in between.

        Raises:
            DataError: naming file, row, key and what came.
        """
        value = self.values.get(key)
        if absent(value):
            return None
        found = as_list(value, "|")
        if not isinstance(found, list):
            raise self.error(f"{key!r} must be a list of texts, got {shown(value)}")
        return [self._text(key, one, marks=True).strip() for one in found]

    def options(self, texts: Sequence[str], style: Style, right: str) -> tuple[Options, int]:
        """The `choices` as they are asked, and which of them is right.

        Raises:
            DataError: naming file, row and what came.
        """
        with self.placed():
            return read_options(texts, style, right)

    def stretch_s(self, start: str = "start_s", end: str = "end_s") -> tuple[float, float | None]:
        """The seconds under `start` (0 where absent) and `end` (None where absent), in order.

        Raises:
            DataError: naming file, row and what came.
        """
        start_s, end_s = self.seconds(start) or 0.0, self.seconds(end)
        if end_s is not None and end_s <= start_s:
            raise self.error(f"{end} must be after {start}, got {start_s:g} to {end_s:g}")
        return start_s, end_s

    def inner(self, key: str) -> Row:
        """The object under a key, as a row of its own.

        Raises:
            DataError: naming file, row, key and what came.
        """
        inner = Row.of(self.path, f"{self.place}, {key!r}", self.need(key))
        inner.check()
        return inner

    def each(self, key: str, kind: str) -> list[Row]:
        """The objects of the list under a key, as rows whose places count them as a `kind`.

        Raises:
            DataError: naming file, row, key and what came.
        """
        values = self.need(key)
        if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
            raise self.error(f"{key!r} must be a list of objects, got {shown(values)}")
        places = (f"{self.place}, {kind} {number}" for number in range(len(values)))
        rows = [Row.of(self.path, place, one) for place, one in zip(places, values, strict=True)]
        for row in rows:
            row.check()
        return rows

    def below(self, root: Path, name: str, key: str) -> Path:
        """`root / name`, a name that stands under a key (see `sources.inside`).

        Raises:
            DataError: naming file, row, key and name, if it leads out or no file can have it.
        """
        with self.placed(key):
            return inside(root, name)

    @contextmanager
    def placed(self, key: str | None = None) -> Iterator[None]:
        """DataErrors from within say where the row stands, and of which key they are.

        Raises:
            DataError: naming file, row and key.
        """
        try:
            yield
        except DataError as error:
            raise self.misplaced(error, key) from None

    def misplaced(self, error: DataError, key: str | None = None) -> DataError:
        """The error with where the row stands, and of which key it is."""
        return self.error(f"{key!r}: {error}" if key else str(error))

    def error(self, what: str) -> DataError:
        """A DataError that says where the row stands."""
        return DataError(f"{self.path}, {self.place}: {what}")

    def _text(self, key: str, value: Any, *, marks: bool = False) -> str:
        try:
            return as_text(value, marks=marks)
        except ValueError as error:
            raise self.error(f"{key!r} {error}") from None
