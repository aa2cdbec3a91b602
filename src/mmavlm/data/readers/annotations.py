"""Annotation files as rows: jsonl, csv and json, each row with its place for error messages."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmavlm.errors import DataError


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
        if value is None or value == "":
            raise DataError(
                f"{self.path}, {self.place}: key {key!r} is missing or empty; "
                f"the row has {sorted(map(str, self.values))}"
            )
        return value

    def number(self, key: str, default: float | None) -> float | None:
        """A number, or `default` where the key is absent or empty.

        Raises:
            DataError: naming file, row, key and what came.
        """
        value = self.values.get(key)
        if value is None or value == "":
            return default
        try:
            return float(value)
        except (TypeError, ValueError):
            raise DataError(
                f"{self.path}, {self.place}: {key!r} must be a number, got {value!r}"
            ) from None


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a .jsonl or .csv file, read one at a time.

    Raises:
        DataError: if the file is missing, of another kind, or a row is no JSON object.
    """
    require(path)
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, values in enumerate(csv.DictReader(file), start=2):
                yield Row(path, f"line {number}", {k: v for k, v in values.items() if k})
        return
    if path.suffix not in (".jsonl", ".json"):
        raise DataError(f"{path} is neither .jsonl nor .csv; write one JSON object a line")
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number} is not JSON: {error}") from None
            if not isinstance(values, dict):
                raise DataError(
                    f"{path}, line {number} must be a JSON object, got {type(values).__name__}"
                )
            yield Row(path, f"line {number}", values)


def read_object(path: Path) -> Iterator[tuple[str, Row]]:
    """The entries of a .json file that holds one object of objects.

    Raises:
        DataError: if the file is missing, broken, or holds something else.
    """
    require(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object, got {type(content).__name__}")
    for key, values in content.items():
        if not isinstance(values, dict):
            raise DataError(
                f"{path}, entry {key!r} must be a JSON object, got {type(values).__name__}"
            )
        yield key, Row(path, f"entry {key!r}", values)


def require(path: Path) -> None:
    """Check that an annotation file is there.

    Raises:
        DataError: naming the nearest folder that exists and what it holds.
    """
    if path.is_file():
        return
    folder = next(parent for parent in (path.parent, *path.parents) if parent.is_dir())
    held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    raise DataError(
        f"annotation {path} does not exist; {folder} holds {held}. Check data.root: it is the "
        "folder above the set's own"
    )
