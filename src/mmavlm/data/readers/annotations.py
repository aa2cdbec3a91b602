"""Annotation files as rows: jsonl, csv and json, each row with its place for error messages."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from mmavlm.data.readers import json_files
from mmavlm.data.sources import inside
from mmavlm.errors import ConfigError, DataError
from mmavlm.interfaces import VideoItem
from mmavlm.options import Options, Style, read_options
from mmavlm.text import clean_caption

SUFFIXES = (".jsonl", ".csv")
SPLITS = ("train", "val", "test")

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
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 <= number < math.inf:
            raise self.error(f"{key!r} must be a number of at least 0, got {value!r}")
        return number

    def whole(self, key: str, *, cut: bool = False) -> int:
        """A whole number from 1 to `MOST`; with `cut` a fraction behind it is dropped.

        Raises:
            DataError: naming file, row, key and what came.
        """
        value = self.need(key)
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
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
        return Row(self.path, place, _object(self.path, place, self.need(key)))

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


def listed(values: str | Sequence[str] | None) -> list[str]:
    """A setting that is a list, of which a single text may be given, or nothing."""
    return [values] if isinstance(values, str) else list(values or ())


def absent(value: Any) -> bool:
    """Whether a value stands for none: null, the empty text, or NaN, as tables have them."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def known_split(split: str) -> str:
    """The split, if it is one.

    Raises:
        ConfigError: naming the three there are.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
    return split


def refuse_task(task: str | Sequence[str] | None, what: str) -> None:
    """Refuse a task for a set that has none to choose from.

    Raises:
        ConfigError: naming the task.
    """
    if task is not None:
        raise ConfigError(f"data.task={task!r}: {what} have no tasks; leave data.task out")


class SplitNames(TypedDict, total=False):
    """What readers pass on to `SplitFiles`: names of files, where they are not the usual ones."""

    train: str | None
    val: str | None
    test: str | None


class SplitFiles:
    """The annotation files `{train,val,test}.jsonl` (or .csv) of a set in a folder below its root.

    `train`, `val` and `test` name other files instead; two splits may name the same one. Rows with
    a `split` of their own belong to that split alone, so that one file may serve all.
    """

    def __init__(
        self,
        folder: str,
        *,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
    ) -> None:
        self.folder = folder
        self.named = {"train": train, "val": val, "test": test}

    def rows(self, root: Path, split: str) -> Iterator[Row]:
        """The rows of a split.

        Raises:
            DataError: naming file and row of what cannot be used.
        """
        for row in read_rows(self.path(root, split)):
            if row.values.get("split") in (None, "", split):
                yield row

    def path(self, root: Path, split: str) -> Path:
        """The file of a split.

        Raises:
            DataError: if it is missing, or none is named and there are two.
        """
        folder = Path(root) / self.folder
        if name := self.named[known_split(split)]:
            return json_files.require(folder / name)
        there = [path for suffix in SUFFIXES if (path := folder / f"{split}{suffix}").is_file()]
        if len(there) > 1:
            raise DataError(
                f"{folder} holds both {split}.jsonl and {split}.csv; "
                f"say which with data.reader.{split}="
            )
        return there[0] if there else json_files.require(folder / f"{split}{SUFFIXES[0]}")


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a .jsonl or .csv file, read one at a time.

    Raises:
        DataError: if the file is of another kind, not UTF-8, or a row is broken.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} is neither .jsonl nor .csv; write one JSON object a line")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from (_csv_rows if path.suffix == ".csv" else _json_rows)(path, file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}; save it as UTF-8 text") from error


def _csv_rows(path: Path, file: Iterable[str]) -> Iterator[Row]:
    reader: csv.DictReader[Any] = csv.DictReader(file)
    for values in reader:
        row = Row(path, f"line {reader.line_num}", values)
        if surplus := values.pop(None, None):
            raise row.error(f"{len(surplus)} columns too many; put texts with commas in quotes")
        values.pop("", None)  # the numbers of the rows, as pandas writes them
        yield row


def _json_rows(path: Path, file: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            values = json_files.loads(line)
        except json_files.NOT_JSON as error:
            raise DataError(f"{path}, {place} is not JSON: {error}") from None
        yield Row(path, place, _object(path, place, values))


def read_object(path: Path) -> Iterator[tuple[str, Row]]:
    """The entries of a .json file that holds one object of objects, read one at a time.

    Raises:
        DataError: if the file is missing, broken, or holds something else.
    """
    for key, values in json_files.entries(path):
        place = f"entry {key!r}"
        yield key, Row(path, place, _object(path, place, values))


def read_list(path: Path) -> Iterator[Row]:
    """The entries of a .json file that holds a list of objects, read one at a time.

    Raises:
        DataError: if the file is missing, broken, or holds something else.
    """
    for number, values in enumerate(json_files.elements(path)):
        place = f"entry {number}"
        yield Row(path, place, _object(path, place, values))


def distinct(items: list[VideoItem], path: Path) -> list[VideoItem]:
    """The same items, if no two have the same id.

    Raises:
        DataError: naming file and id.
    """
    for name, count in Counter(item.item_id for item in items).most_common(1):
        if count > 1:
            raise DataError(
                f"{path}: id {name!r} occurs {count} times; give each row an id of its own"
            )
    return items


def _object(path: Path, place: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise DataError(f"{path}, {place} must be a JSON object, got {type(values).__name__}")
    return values
