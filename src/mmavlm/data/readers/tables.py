"""Tables as rows: csv, and the same with semicolons, tabs or bars between its columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from mmavlm.core.errors import DataError
from mmavlm.data.readers.json_files import MAX_ENTRY_CHARS
from mmavlm.data.readers.rows import Row

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SAID = re.compile(r"sep=(.)\s*", re.IGNORECASE)  # the first line of some of Excel's files


def table_rows(path: Path, file: Iterable[str]) -> Iterator[Row]:
    """The rows of a table by the names in its header; a row's line is the one where it begins.

    The separator is the sign of `SEPARATORS` that the header has most of.

    Raises:
        DataError: if the header has a name twice.
    """
    lines = iter(file)
    before, first = _first_line(lines)
    if said := SAID.fullmatch(first):
        skipped, first = _first_line(lines)
        before += skipped + 1
    separator = said[1] if said else _separator(first)
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ENTRY_CHARS))
    reader = csv.reader(
        chain([first], lines), delimiter=separator, strict=True, skipinitialspace=True
    )
    names: list[str] | None = None
    why: str | None
    while True:
        place = f"line {before + reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            end = f"line {before + reader.line_num}"
            why = (
                f"is not CSV: {error}{'' if end == place else f' (up to {end})'}; see that each "
                "quotation mark closes, and write those within quotes twice"
            )
            if names is None:
                raise DataError(f"{path}, {place} {why}") from None
            yield Row(path, place, {}, why)
            continue
        if cells is None:
            return
        if names is None:
            names = _names(path, cells)
            nameless = "" in names
        elif cells:
            if len(cells) > len(names) and (why := _surplus(cells[len(names) :], separator)):
                yield Row(path, place, {}, why)
                continue
            values = dict(zip(names, cells, strict=False))
            if nameless:  # the numbers of the rows, as pandas writes them
                values.pop("", None)
            yield Row(path, place, values)


def _first_line(lines: Iterator[str]) -> tuple[int, str]:
    """How many blank lines come, and the line behind them."""
    blank = 0
    for line in lines:
        if line.strip():
            return blank, line
        blank += 1
    return blank, ""


def _separator(header: str) -> str:
    return max(SEPARATORS, key=re.sub(r'"[^"]*"', "", header).count)


def _names(path: Path, cells: list[str]) -> list[str]:
    names = [name.strip() for name in cells]
    if twice := [name for at, name in enumerate(names) if name and name in names[:at]]:
        raise DataError(f"{path}: column {twice[0]!r} is twice in the header; leave one, or rename")
    return names


def _surplus(cells: list[str], separator: str) -> str | None:
    """What is wrong with cells beyond the columns, None if they are empty."""
    if not any(cell.strip() for cell in cells):
        return None
    of_what = SEPARATORS.get(separator, repr(separator))
    return f"{len(cells)} columns too many; put texts with {of_what} in quotes"
