"""Writes items as a table: blocks of plain rows by columns, others item by item."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmavlm.core.items import Item
from mmavlm.data.item_rows import COLUMNS, SCHEMA, Common, row_of
from mmavlm.data.item_table import (
    BATCH_ROWS,
    COMMON,
    DROPPED,
    FILMS,
    ITEMS,
    MISSING,
    MOVED,
    column_hashes,
    film_hashes,
)
from mmavlm.data.listing import Kind, not_listed
from mmavlm.data.looked_at import look_at
from mmavlm.data.names import Hashes

MOVED_SCHEMA = pa.schema([("row", pa.int32()), ("source", pa.string())])


@dataclass
class PlainRows:
    """Rows of an annotation as columns of `item_rows.SCHEMA`; of those that are absent all is null.

    `plain` (N,) tells rows that are what they seem from others, whose columns mean nothing. A
    film's `source` is taken to be there, as a file or folder of `kind`.
    """

    columns: Mapping[str, pa.Array]
    plain: NDArray[np.bool_]
    kind: Kind = "file"


Resolve = Callable[[str, Path], Path]  # film, and where it was taken to lie → where it lies


class ItemWriter:
    """Writes the files of an `ItemTable` to a folder; use it as a context, then `finish`.

    Without `look` no film is looked for, and none is missing.
    """

    def __init__(self, folder: Path, common: Common, *, look: bool = True) -> None:
        self.folder = folder
        self.common = common
        self.look = look
        schema = SCHEMA.with_metadata({COMMON: json.dumps(common._asdict()).encode()})
        self._sink = pa.OSFile(str(folder / ITEMS), "wb")
        self._file = pa.ipc.new_file(self._sink, schema)
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0
        self.finished = False
        self._taken = _Taken()
        self._ids: list[Hashes] = []
        self._films: list[Hashes] = []
        self._entries: list[NDArray[np.int64]] = []
        self._missing: list[int] = []
        self._there: dict[Path, bool] = {}

    def __enter__(self) -> ItemWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __len__(self) -> int:
        return self._rows

    def add(self, rows: PlainRows, others: Sequence[tuple[int, Item]], first: int) -> None:
        """Add plain rows, and `others`: the items of those that are not, by their place among them.

        `first` is the number of the first row among all entries of the annotation.
        """
        number = np.flatnonzero(rows.plain)
        size = len(rows.plain)
        given = {"flags": pa.array(np.zeros(size, np.uint8)), **rows.columns}
        columns = [given.get(name) for name in COLUMNS]
        arrays = [
            pa.nulls(size, kind.type) if c is None else c
            for c, kind in zip(columns, SCHEMA, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
        if len(number) < size:
            batch = batch.take(pa.array(number))
        places = np.concatenate([number, [place for place, _ in others]]).astype(np.int64)
        order = np.argsort(places, kind="stable")
        at = self._rows + np.argsort(order)  # the row that each becomes
        if self.look:
            self._taken.add(batch.column("source"), rows.kind, at[: len(number)])
        for row, (_, item) in zip(at[len(number) :].tolist(), others, strict=True):
            if not all(self._is_there(m.source) for m in item.conversation.media):
                self._missing.append(row)
        if others:
            more = [row_of(item, self.common) for _, item in others]
            both = pa.Table.from_batches([batch, pa.RecordBatch.from_pylist(more, schema=SCHEMA)])
            [batch] = both.take(pa.array(order)).combine_chunks().to_batches()
        self._entries.append(first + places[order])
        self._write(batch)

    def add_items(self, items: Iterable[Item]) -> None:
        """Add items, each an entry of its own."""
        nothing, rest = PlainRows({}, np.zeros(0, bool)), iter(items)
        while some := list(islice(rest, BATCH_ROWS)):
            self.add(nothing, list(enumerate(some)), self._rows)

    def repeated(self, table: pa.Table) -> NDArray[np.int32]:
        """The rows whose id stands in a row before."""
        ids = np.concatenate([np.zeros(0, np.uint64), *self._ids])
        order = np.argsort(ids, kind="stable")
        same = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
        alike = np.unique(order[np.concatenate([same, same + 1])])
        seen: set[str] = set()
        again = []
        for row, name in zip(alike, table.column("item_id").take(alike).to_pylist(), strict=True):
            if name in seen:
                again.append(row)
            seen.add(name)
        return np.array(again, np.int32)

    def finish(self, resolve: Resolve | None = None) -> NDArray[np.int64]:
        """Write what the table has beside the rows; films that are not listed are resolved.

        Rows with an id that was there before are dropped; their entries' numbers are returned.
        """
        self._flush()
        self._close()
        table = pa.ipc.open_file(pa.memory_map(str(self.folder / ITEMS))).read_all()
        moved: dict[int, str] = {}
        root = Path(self.common.root)
        for row, film, source in self._taken.not_there(root, table):
            found = source if resolve is None else resolve(film, source)
            if not self._is_there(found):
                self._missing.append(row)
            if found != source:
                moved[row] = str(found.relative_to(root) if found.is_relative_to(root) else found)
        if len(dropped := self.repeated(table)):
            np.save(self.folder / DROPPED, dropped)
        missing = np.array(sorted({*self._missing} - {*dropped.tolist()}), np.int32)
        np.save(self.folder / MISSING, missing)
        np.save(self.folder / FILMS, np.unique(np.concatenate(self._films_but(table, dropped))))
        if moved:
            rows = sorted(moved)
            arrays = [pa.array(rows, pa.int32()), pa.array([moved[row] for row in rows])]
            with (
                pa.OSFile(str(self.folder / MOVED), "wb") as sink,
                pa.ipc.new_file(sink, MOVED_SCHEMA) as file,
            ):
                file.write_batch(pa.RecordBatch.from_arrays(arrays, schema=MOVED_SCHEMA))
        self.finished = True
        return np.concatenate([np.zeros(0, np.int64), *self._entries])[dropped]

    def _films_but(self, table: pa.Table, dropped: NDArray[np.int32]) -> list[Hashes]:
        """The hashes of films of all rows that are not dropped."""
        if not len(dropped):
            return [np.zeros(0, np.uint64), *self._films]
        kept = np.setdiff1d(np.arange(len(table)), dropped)
        return [film_hashes(table.take(pa.array(kept)))]

    def _close(self) -> None:
        if not self._sink.closed:
            self._file.close()
            self._sink.close()

    def _is_there(self, source: Path) -> bool:
        if not self.look:
            return True
        if source not in self._there:
            look_at(source.parent)
            self._there[source] = source.exists()
        return self._there[source]

    def _write(self, batch: pa.RecordBatch) -> None:
        self._rows += len(batch)
        self._ids.append(column_hashes(batch.column("item_id")))
        self._films.append(np.unique(film_hashes(pa.Table.from_batches([batch]))))
        self._waiting.append(batch)
        if sum(map(len, self._waiting)) >= BATCH_ROWS:
            self._flush(whole=True)

    def _flush(self, *, whole: bool = False) -> None:
        """Write what waits, and with `whole` no batch but of the usual size."""
        table = pa.Table.from_batches(self._waiting, SCHEMA).combine_chunks()
        self._waiting = []
        for start in range(0, len(table), BATCH_ROWS):
            [batch] = table.slice(start, BATCH_ROWS).combine_chunks().to_batches()
            if whole and len(batch) < BATCH_ROWS:
                self._waiting = [batch]
            else:
                self._file.write_batch(batch)


@dataclass
class _Taken:
    """Films that are taken to be there: for each their row, its folder and what it is to be."""

    folders: dict[str, int] = field(default_factory=dict)
    rows: list[NDArray[np.int32]] = field(default_factory=list)
    codes: list[NDArray[np.int32]] = field(default_factory=list)
    kinds: dict[int, Kind] = field(default_factory=dict)

    def add(self, sources: pa.StringArray, kind: Kind, rows: NDArray[np.int64]) -> None:
        """Note the sources of rows."""
        if not len(rows):
            return
        coded = pc.replace_substring_regex(sources, "(^|/)[^/]*$", "").dictionary_encode()
        codes = []
        for folder in coded.dictionary.to_pylist():
            codes.append(self.folders.setdefault(folder, len(self.folders)))
            self.kinds[codes[-1]] = kind
        self.codes.append(np.array(codes, np.int32)[coded.indices.to_numpy()])
        self.rows.append(rows.astype(np.int32))

    def not_there(self, root: Path, table: pa.Table) -> Iterable[tuple[int, str, Path]]:
        """Row, film and source of those that no folder lists."""
        if not self.rows:
            return
        rows, codes = np.concatenate(self.rows), np.concatenate(self.codes)
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes, minlength=len(self.folders)))
        places = [look_at(root / folder) for folder in self.folders]
        kinds = [self.kinds[code] for code in range(len(places))]
        for row in not_listed(table.column("source"), rows[order], ends, places, kinds):
            video = table.column("video")[row].as_py() or table.column("item_id")[row].as_py()
            yield row, video, root / table.column("source")[row].as_py()
