"""Items in an Arrow file that processes share: it is mapped, and items are made when used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmavlm.core.items import Item
from mmavlm.data.item_rows import COLUMNS, Common, item_of
from mmavlm.data.items import Coded, ColumnItems, Flag, Indices, Key, Present
from mmavlm.data.names import Hashes, Names, hashes_of, text_hashes

ITEMS, MOVED = "items.arrow", "moved.arrow"
DROPPED, MISSING, FILMS = "dropped.npy", "missing.npy", "films.npy"
COMMON = b"mmavlm"  # the key of the file's metadata
BATCH_ROWS = 1 << 16  # of all batches but the last
AT_ONCE = 1 << 14  # items that are made together
Rows = NDArray[np.int32]


class ItemTable(ColumnItems):
    """The items of a folder that `write_table` has filled, or those of its `rows`.

    Of the folder's files `dropped` are rows that are no items, `missing` those whose films are not
    there, and `moved` says of films where they lie, if that is elsewhere than their row says. Sent
    to another process it is the folder's name, and opened there anew.
    """

    def __init__(self, folder: Path, rows: Rows | None = None) -> None:
        self.folder = folder
        self.table = _mapped(folder / ITEMS)
        self.common = Common(**json.loads(self.table.schema.metadata[COMMON]))
        self.whole = rows is None
        self.rows = self._not_dropped() if rows is None else rows
        columns = [self.table.column(name).chunks for name in COLUMNS]
        self._batches = list(zip(*columns, strict=True))
        moved = folder / MOVED
        self._moved = _Moved.read(moved) if moved.is_file() else None

    def __reduce__(self) -> tuple[Any, ...]:
        return ItemTable, (self.folder, None if self.whole else self.rows)

    def __len__(self) -> int:
        return int(self.table.num_rows) if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> ItemTable: ...
    def __getitem__(self, at: int | slice) -> Item | ItemTable:
        if isinstance(at, slice):
            chosen = range(*at.indices(len(self)))
            same = chosen == range(len(self))
            return self if same else self.at(np.arange(chosen.start, chosen.stop, chosen.step))
        index = range(len(self))[at]
        row = index if self.rows is None else int(self.rows[index])
        batch, place = self._batches[row // BATCH_ROWS], row % BATCH_ROWS
        return self._item(row, {n: c[place].as_py() for n, c in zip(COLUMNS, batch, strict=True)})

    def __iter__(self) -> Iterator[Item]:
        for start in range(0, len(self), AT_ONCE):
            some = self[start : start + AT_ONCE]
            rows = range(len(some)) if some.rows is None else some.rows.tolist()
            columns = [some.column(name).to_pylist() for name in COLUMNS]
            for row, *values in zip(rows, *columns, strict=True):
                yield self._item(row, dict(zip(COLUMNS, values, strict=True)))

    def at(self, indices: Indices) -> ItemTable:
        """The items at these indices."""
        rows = indices if self.rows is None else self.rows[indices]
        return ItemTable(self.folder, rows.astype(np.int32))

    def column(self, name: str) -> pa.ChunkedArray:
        """What a column of `item_rows.SCHEMA` says of each item."""
        column = self.table.column(name)
        return column if self.rows is None else column.take(pa.array(self.rows))

    def flagged(self, flags: Flag) -> Indices:
        """The indices of the items that have any of the `flags`."""
        return np.flatnonzero(self.column("flags").to_numpy() & int(flags))

    def coded(self, key: Key) -> Coded:
        """The task, the answer or the prompt of every item."""
        texts = self.column("target" if key == "answer" else key)
        if key != "answer":
            texts = pc.fill_null(texts, getattr(self.common, key))
        parts = pc.dictionary_encode(texts).unify_dictionaries().chunks
        names = parts[0].dictionary.to_pylist() if parts else []
        codes = [np.asarray(part.indices, np.int32) for part in parts]
        return Coded(names, np.concatenate([np.zeros(0, np.int32), *codes]))

    def folders(self) -> Coded:
        """The folder below the root in which the first film of every item lies, -1 for no film."""
        first = pc.replace_substring_regex(self.column("source"), "/.*$", "")
        parts = pc.dictionary_encode(first).unify_dictionaries().chunks
        names = parts[0].dictionary.to_pylist() if parts else []
        codes = [np.asarray(pc.fill_null(part.indices, -1), np.int32) for part in parts]
        return Coded(names, np.concatenate([np.zeros(0, np.int32), *codes]))

    def films(self) -> Names:
        """The names of all that the items show or let hear."""
        if self.whole:
            return Names(np.load(self.folder / FILMS, mmap_mode="r"))
        return Names(np.unique(film_hashes(self.table if self.rows is None else self._taken())))

    def present(self) -> Present:
        """Which films there are, and the items that can be shown."""
        missing = np.load(self.folder / MISSING, mmap_mode="r")
        rows = np.arange(self.table.num_rows, dtype=np.int32) if self.rows is None else self.rows
        kept = ~np.isin(rows, missing) if len(missing) else np.ones(len(rows), bool)
        there = self if kept.all() else ItemTable(self.folder, rows[kept])
        return Present(self.films(), self.missing_films(), there)

    def missing_films(self) -> dict[str, Path]:
        """Film → where it is missed."""
        missing: Rows = np.load(self.folder / MISSING)
        rows = missing if self.rows is None else self.rows[np.isin(self.rows, missing)]
        shown = (m for item in ItemTable(self.folder, rows) for m in item.conversation.media)
        return {m.medium_id: m.source for m in shown if not m.source.exists()}

    def _item(self, row: int, values: dict[str, Any]) -> Item:
        if self._moved is not None and (source := self._moved.source(row)) is not None:
            values["source"] = source
        return item_of(values, self.common)

    def _taken(self) -> pa.Table:
        return self.table.take(pa.array(self.rows))

    def _not_dropped(self) -> Rows | None:
        if not (dropped := self.folder / DROPPED).is_file():
            return None
        kept = np.ones(self.table.num_rows, bool)
        kept[np.load(dropped)] = False
        return np.flatnonzero(kept).astype(np.int32)


class _Moved:
    """Where films lie of rows that say otherwise."""

    def __init__(self, rows: Rows, sources: pa.ChunkedArray) -> None:
        self.rows = rows
        self.sources = sources

    @classmethod
    def read(cls, path: Path) -> _Moved:
        """As `path` has it."""
        table = _mapped(path)
        return cls(table.column("row").to_numpy(), table.column("source"))

    def source(self, row: int) -> str | None:
        """Where the film of a row lies, None if where the row says."""
        at = int(np.searchsorted(self.rows, row))
        here = at < len(self.rows) and self.rows[at] == row
        return self.sources[at].as_py() if here else None


def film_hashes(rows: pa.Table) -> Hashes:
    """The hashes of the names of what rows show, those of plain rows in their order."""
    rich = pc.is_valid(rows.column("rest"))
    plain = rows.filter(pc.invert(rich)) if pc.any(rich).as_py() else rows
    names = pc.coalesce(plain.column("video"), plain.column("item_id"))
    told = rows.column("rest").filter(rich).to_pylist()
    media = (medium["id"] for rest in told for medium in json.loads(rest)["talk"]["media"])
    return np.concatenate([*map(column_hashes, names.chunks), hashes_of(media)])


def column_hashes(texts: pa.StringArray) -> Hashes:
    """The hash of each text of a column without gaps (see `names`)."""
    _, offsets, data = texts.buffers()
    at = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return text_hashes(np.frombuffer(data or b"", np.uint8), at.astype(np.int64))


def _mapped(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()
