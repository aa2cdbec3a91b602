"""Annotation files as rows: jsonl, csv and json, each row with its place for error messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from json import JSONDecodeError
from pathlib import Path

from typing_extensions import TypedDict

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.looked_at import look_at
from mmavlm.data.readers import json_files
from mmavlm.data.readers.json_values import NOT_JSON, loads
from mmavlm.data.readers.layout import Layout, refuse_other_files
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.tables import table_rows
from mmavlm.data.readers.values import absent, shown

USUAL = (".jsonl", ".csv")
SUFFIXES = (*USUAL, ".tsv", ".json")  # the others are taken where there are no usual ones
SPLITS = ("train", "val", "test")
# How files that hold all splits name them, in any case.
SPLIT_NAMES = {name: name for name in SPLITS} | {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "eval": "val",
    "testing": "test",
}


def split_of(value: object) -> str | None:
    """The split that a value names, whatever its case; None if it names none that is known."""
    return SPLIT_NAMES.get(value.strip().lower()) if isinstance(value, str) else None


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
    """The annotation files `{train,val,test}.jsonl` (.csv, .tsv, .json) of a set below its root.

    `train`, `val` and `test` name other files instead; two splits may name the same one. Rows with
    a `split` of their own belong to that split alone, so that one file may serve all. `layout` says
    which keys the rows have, and `keys` which of them have other names in the files.

    Raises:
        ConfigError: if `keys` gives a name to a key that rows do not have.
    """

    def __init__(
        self,
        folder: str,
        layout: Layout,
        *,
        keys: Mapping[str, str] | None = None,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
    ) -> None:
        self.folder = folder
        self.layout = layout
        self.keys = {str(theirs): str(ours) for ours, theirs in (keys or {}).items()}
        if unknown := sorted(set(self.keys.values()) - layout.known):
            raise ConfigError(
                f"data.reader.keys names {unknown}; rows have {', '.join(sorted(layout.known))}"
            )
        self.named = {"train": train, "val": val, "test": test}

    def rows(self, root: Path, split: str) -> Iterator[Row]:
        """The rows of a split, and those that are broken or say of no known split they are of.

        Raises:
            DataError: if the file cannot be read, is laid out otherwise, or has none of the split.
        """
        others: Counter[str] = Counter()
        found = False
        rows = map(self._renamed, self._all(root, split)) if self.keys else self._all(root, split)
        head = list(islice(rows, 2))
        refuse_other_files(head, self.layout)
        for row in chain(head, rows):
            value = row.values.get("split")
            if value is None or absent(value) or (of := split_of(value)) == split:
                found = True
                yield row
            elif of is None:
                known = ", ".join(SPLIT_NAMES)
                why = f"'split' must be one of {known}, got {shown(value)}"
                found = True
                yield replace(row, values={}, broken=why)
            else:
                others[of] += 1
        if not found:
            there = ", ".join(f"{count} of {name}" for name, count in others.items())
            path = self.path(root, split)
            raise DataError(
                f"{path} has no rows of the {split} split, but {there}"
                if there
                else f"{path} holds no rows"
            )

    def _all(self, root: Path, split: str) -> Iterator[Row]:
        """The rows of a split's file, of whatever split they are."""
        return read_rows(self.path(root, split))

    def _renamed(self, row: Row) -> Row:
        return replace(row, values={self.keys.get(k, k): v for k, v in row.values.items()})

    def path(self, root: Path, split: str) -> Path:
        """The file of a split.

        Raises:
            DataError: if it is missing, or none is named and there are two.
        """
        folder = Path(root) / self.folder
        if name := self.named[known_split(split)]:
            return json_files.require(folder / name)
        there = [path for suffix in SUFFIXES if (path := folder / f"{split}{suffix}").is_file()]
        if len([path for path in there if path.suffix in USUAL]) > 1:
            raise DataError(
                f"{folder} holds both {split}.jsonl and {split}.csv; "
                f"say which with data.reader.{split}="
            )
        return there[0] if there else json_files.require(folder / f"{split}{SUFFIXES[0]}")


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a .jsonl, .csv, .tsv or .json file, read one at a time, broken ones among them.

    Raises:
        DataError: if the file is of another kind, or cannot be read at all.
    """
    readers = {".jsonl": _lines, ".csv": table_rows, ".tsv": table_rows, ".json": _of_one_value}
    if path.suffix.lower() not in readers:
        raise DataError(
            f"{path} is neither {', '.join(SUFFIXES[:-1])} nor {SUFFIXES[-1]}; "
            "write one JSON object a line"
        )
    encoding = json_files.encoding_of(look_at(path))
    try:
        # a byte that is no UTF-8 becomes a sign that no text may hold, and is refused by its key
        with path.open(newline="", encoding=encoding, errors="surrogateescape") as file:
            yield from readers[path.suffix.lower()](path, file)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read: {error}; save it as UTF-8 text") from error


def _lines(path: Path, file: Iterable[str]) -> Iterator[Row]:
    first = True
    for number, line in enumerate(file, start=1):
        if line.isspace():
            continue
        if first:
            if (begin := line.strip())[:1] == "[":
                yield from read_list(path)
                return
            if begin == "{":
                raise DataError(
                    f"{path}: JSON over several lines, but a .jsonl has one object a line: write "
                    f"it so with `jq -c . {path.name}`, or name it {path.stem}.json if it is a "
                    "single value"
                )
            first = False
        place = f"line {number}"
        try:
            values = loads(line)
        except JSONDecodeError as error:  # whose own line is always 1
            yield Row(path, place, {}, f"is not JSON: {error.msg} at column {error.colno}")
        except NOT_JSON as error:
            yield Row(path, place, {}, f"is not JSON: {error}")
        else:
            yield Row(path, place, values) if type(values) is dict else Row.of(path, place, values)


def _of_one_value(path: Path, file: Iterable[str]) -> Iterator[Row]:
    """The rows of a .json file: a list of them, or an object that has each under its id."""
    begin = next((line for line in file if line.strip()), "").lstrip()[:1]
    if begin != "{":
        yield from read_list(path)
        return
    for number, (key, row) in enumerate(read_object(path)):
        if number == 0 and row.broken is not None:
            raise DataError(
                f"{path} must hold a list of rows, or an object with each row under its id; but "
                f"{key!r} {row.broken}. If the rows are a list under it, write that list alone: "
                f"`jq '.[\"{key}\"]' {path.name}`"
            )
        yield row


def read_object(path: Path) -> Iterator[tuple[str, Row]]:
    """The entries of a .json file that holds one object of objects, read one at a time.

    Raises:
        DataError: if the file is missing, broken, or holds something else.
    """
    for key, values in json_files.entries(path):
        row = Row.of(path, f"entry {shown(key)}", values)
        yield key, row if key.strip() else replace(row, values={}, broken="the key is blank")


def read_list(path: Path) -> Iterator[Row]:
    """The entries of a .json file that holds a list of objects, read one at a time.

    Raises:
        DataError: if the file is missing, broken, or holds something else.
    """
    for number, values in enumerate(json_files.elements(path)):
        yield Row.of(path, f"entry {number}", values)
