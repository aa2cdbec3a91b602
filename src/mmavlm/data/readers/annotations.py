"""Annotation files as rows: jsonl, csv and json, each row with its place for error messages."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from mmavlm.data.readers import json_files
from mmavlm.data.readers.rows import Row, as_object
from mmavlm.errors import ConfigError, DataError
from mmavlm.interfaces import VideoItem

SUFFIXES = (".jsonl", ".csv")
SPLITS = ("train", "val", "test")


def listed(values: str | Sequence[str] | None) -> list[str]:
    """A setting that is a list, of which a single text may be given, or nothing."""
    return [values] if isinstance(values, str) else list(values or ())


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
        yield Row(path, place, as_object(path, place, values))


def read_object(path: Path) -> Iterator[tuple[str, Row]]:
    """The entries of a .json file that holds one object of objects, read one at a time.

    Raises:
        DataError: if the file is missing, broken, or holds something else.
    """
    for key, values in json_files.entries(path):
        place = f"entry {key!r}"
        yield key, Row(path, place, as_object(path, place, values))


def read_list(path: Path) -> Iterator[Row]:
    """The entries of a .json file that holds a list of objects, read one at a time.

    Raises:
        DataError: if the file is missing, broken, or holds something else.
    """
    for number, values in enumerate(json_files.elements(path)):
        place = f"entry {number}"
        yield Row(path, place, as_object(path, place, values))


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
