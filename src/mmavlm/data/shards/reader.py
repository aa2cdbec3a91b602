"""Sets that lie in shards, as items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.core.options import Style
from mmavlm.core.settings import whole_at_least
from mmavlm.data.item_rows import Common
from mmavlm.data.readers.annotations import listed
from mmavlm.data.readers.captions import CaptionReader
from mmavlm.data.readers.entries import Found
from mmavlm.data.readers.own import OPEN, OWN_ID, OwnReader
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.tabled import Reading, TabledReader
from mmavlm.data.readers.values import absent
from mmavlm.data.shards.packed_items import asked_by, item_of, no_plain_rows, plain_rows
from mmavlm.data.shards.splits import ShardSplits
from mmavlm.data.shards.store import ShardStore
from mmavlm.data.shards.tables import Columns
from mmavlm.data.shards.theirs import Called, RowsOfShards

if TYPE_CHECKING:
    from mmavlm.data.item_writer import PlainRows

ROWS = ("captions", "questions")
MANY = 20_000  # items: fewer are read in a second


@dataclass
class PackedRow(Row):
    """A row of a shard of ours: a whole item, whose films go to a `folder`."""

    item: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""


NO_ROW = PackedRow(Path(), "", {})


class ShardReader(TabledReader):
    """Shards below `root`, a folder or an address: WebDataset's tar files, or Parquet.

    `train`, `val` and `test` are their names, as patterns with braces or as globs; null is
    `<split>-*.tar` or `.parquet`. Shards that mmavlm packed hold whole items. Of others `rows` says
    what the `.json` of a sample has: `captions` as of `CaptionReader` (or a `.txt`), or `questions`
    as of `OwnReader`; `keys` are other names of their keys, and no row names its film. In Parquet
    the column `video` has the bytes of films, whose suffix is `suffix` where they have no path. In
    training films of `mixed` shards are mixed at a time. `store` is where shards are kept. With
    `frame_fps` shards that hold JPEGs at another rate are refused.

    Raises:
        ConfigError: if there are no such rows or keys, or a number is out of range.
    """

    def __init__(
        self,
        root: str | Path,
        store: ShardStore,
        *,
        train: str | Sequence[str] | None = None,
        val: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
        rows: str = "captions",
        keys: Mapping[str, str] | None = None,
        closed: str | Sequence[str] = (),
        options: Style = "letters",
        max_words: int = 50,
        video: str = "video",
        suffix: str = ".mp4",
        mixed: int = 8,
        frame_fps: float | None = None,
    ) -> None:
        whole_at_least("data.reader", 1, mixed=mixed)
        if rows not in ROWS:
            raise ConfigError(f"data.reader.rows={rows} is unknown; choose {' or '.join(ROWS)}")
        if keys and "video" in keys:
            raise ConfigError("data.reader.keys names video, but a row is about its own film")
        self.films = store
        store.mixed = mixed
        patterns = {"train": train, "val": val, "test": test}
        self.splits = ShardSplits(str(root), store, patterns, Columns(video, suffix), frame_fps)
        self.rows: OwnReader | CaptionReader
        if rows == "questions":
            self.rows = OwnReader(closed=closed, options=options, keys=keys)
        else:
            self.rows = CaptionReader(max_words=max_words, keys=keys)
        self.rows.files = RowsOfShards(self.rows.files, self.splits)
        self._told = [rows, dict(keys or {}), listed(closed), options, max_words]

    def kept_as(self, split: str) -> list[Any]:
        """Plain values that are equal where the items of a split are: settings and shards."""
        shards = [shard.folder for shard, _ in self.splits.shards(split)]
        return [*self._told, str(self.films.root), shards, self.splits.unread(split)]

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """The items of the shards of a split, and what cannot be used.

        Raises:
            ConfigError: if a file system cannot be used, or a task is given of captions.
            DataError: if there are no shards, or none can be read.
        """
        return self.reading(root, split, task).found()

    def reading(self, root: Path, split: str, task: str | Sequence[str] | None) -> Reading:
        """How the lines of the shards' indices become items; errors as of `read`."""
        if self.splits.has(split, packed=False):
            return self._theirs(split, task)
        some = next(self._packed(split, task), None)
        prompt, of_task = ("", "") if some is None else asked_by(some[1].item)
        common = Common(str(self.films.root), prompt, of_task)
        return Reading(
            lambda: self._entries(split, task),
            lambda _, row: _packed_item(row, self.films.root),
            lambda entries: _plain(entries, common),
            lambda _, source: source,
            prompt=prompt,
            task=of_task,
            many=self._are_many(split),
        )

    def _theirs(self, split: str, task: str | Sequence[str] | None) -> Reading:
        """How the rows of others become items; shards of ours may lie among theirs."""
        names = {shard.folder: shard.name for shard, _ in self.splits.shards(split)}
        called = Called(self.films.root, names)
        inner = self._inner(split, task)

        def item(key: str, row: Row) -> Item:
            if isinstance(row, PackedRow):
                return _packed_item(row, self.films.root)
            return called.item(inner.item_of(key, row))

        def plain(entries: Sequence[tuple[str, Row]]) -> PlainRows:
            ours = any(isinstance(row, PackedRow) for _, row in entries)
            return no_plain_rows(len(entries)) if ours else called.rows(inner.plain(entries))

        entries = partial(self._entries, split, task)
        many = self._are_many(split)
        return replace(inner, entries=entries, item_of=item, plain=plain, many=many)

    def _inner(self, split: str, task: str | Sequence[str] | None) -> Reading:
        """How rows become items where films lie on a disk."""
        found = self.rows.reading(self.films.root, split, task)
        if found is not None:
            return found
        assert isinstance(self.rows, OwnReader)  # captions have a reading
        return Reading(
            lambda: self._entries(split, task),
            self.rows.item_of(self.films.root, task),
            lambda entries: no_plain_rows(len(entries)),
            lambda _, source: source,
            task=OPEN,
            layout=self.rows.files.layout,
            again=OWN_ID,
        )

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """Closed task → its classes.

        Raises:
            DataError: if shards were packed with other classes than the rest.
        """
        found: dict[str, list[str]] = {}
        for shard, header in self.splits.shards("train"):
            for name, classes in header.classes.items():
                if found.setdefault(name, list(classes)) != list(classes):
                    raise DataError(
                        f"{shard.place} was packed with other classes of task {name} than the "
                        "shards before it; pack them all at once"
                    )
        if self.splits.has("train", packed=False):
            found = {**self.rows.classes(self.films.root, task), **found}
        tasks = listed(task) or list(found)
        return {name: classes for name, classes in found.items() if name in tasks}

    def _are_many(self, split: str) -> bool:
        return sum(header.lines for _, header in self.splits.shards(split)) >= MANY

    def _entries(self, split: str, task: str | Sequence[str] | None) -> Iterator[tuple[str, Row]]:
        """The rows of all shards, and those that cannot be looked into as broken ones."""
        path = self.rows.files.path(self.films.root, split)
        for name, why in self.splits.unread(split).items():
            yield name, Row(path, name, {}, why)
        yield from self._packed(split, task)
        if self.splits.has(split, packed=False):
            tasks = listed(task)
            for row in self.rows.files.rows(self.films.root, split):
                of_task = row.values.get("task")
                known = OPEN if absent(of_task) else of_task
                if not tasks or row.broken is not None or known in tasks:
                    yield row.place, row

    def _packed(
        self, split: str, task: str | Sequence[str] | None
    ) -> Iterator[tuple[str, PackedRow]]:
        path, tasks = self.rows.files.path(self.films.root, split), listed(task)
        for number, kept in enumerate(self.splits.kept(split, packed=True)):
            item = kept.entry.get("item")
            place = f"{kept.shard.name}, item {number}"
            if not isinstance(item, dict):
                yield place, PackedRow(path, place, {}, "is no item of mmavlm's")
            elif not tasks or item.get("task", "") in tasks:
                yield place, PackedRow(path, place, {}, None, item, kept.shard.folder)


def _packed_item(row: Row, root: Path) -> Item:
    if not isinstance(row, PackedRow):
        raise row.error("is no item of mmavlm's")
    with row.placed():
        return item_of(row.item, root / row.folder)


def _plain(entries: Sequence[tuple[str, Row]], common: Common) -> PlainRows:
    """Packed items by columns; a row that is none is not plain."""
    rows = [row if isinstance(row, PackedRow) else NO_ROW for _, row in entries]
    return plain_rows([row.item for row in rows], [row.folder for row in rows], common)
