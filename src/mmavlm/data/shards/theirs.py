"""Rows of shards that others have packed, and how their films are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmavlm.core.items import Item
from mmavlm.core.medium import Kind
from mmavlm.data.readers.annotations import SplitFiles
from mmavlm.data.readers.rows import Row
from mmavlm.data.shards.members import part_of
from mmavlm.data.shards.splits import ShardSplits

if TYPE_CHECKING:
    from mmavlm.data.item_writer import PlainRows


class RowsOfShards(SplitFiles):
    """Rows that come from the shards of others, where elsewhere they come from files."""

    def __init__(self, files: SplitFiles, splits: ShardSplits) -> None:
        self.__dict__.update(vars(files))
        self.splits = splits

    def path(self, root: Path, split: str) -> Path:
        """What stands for the file in messages."""
        return Path(str(self.splits.pattern(split)))

    def _all(self, root: Path, split: str) -> Iterator[Row]:
        path = self.path(root, split)
        for kept in self.splits.kept(split, packed=False):
            entry = kept.entry
            if "film" in entry:
                video = f"{kept.shard.folder}/{entry['film']}"
                values = {"id": kept.place, **entry["values"], "video": video}
                yield Row(path, kept.place, values)
            else:
                yield Row(path, kept.place, {}, str(entry.get("problem", "is no sample")))


@dataclass(frozen=True)
class Called:
    """Films called by their shard and their place in it, whatever folder below `root` it goes to.

    `shards` has the name of the shard of each folder.
    """

    root: Path
    shards: Mapping[str, str]

    def item(self, item: Item) -> Item:
        """An item whose film is called so, and is of the kind that its name says."""
        name, kind = self._named(str(item.film.source.relative_to(self.root)))
        film = replace(item.film, medium_id=name, kind=kind)
        return replace(item, conversation=replace(item.conversation, media=(film,)))

    def rows(self, rows: PlainRows) -> PlainRows:
        """Plain rows whose films are called so; those of another kind are not plain."""
        import pyarrow as pa

        if "source" not in rows.columns:
            return rows
        told = [self._named(source or "") for source in rows.columns["source"].to_pylist()]
        films = np.array([kind == "film" for _, kind in told], bool)
        video = pa.array([name for name, _ in told], pa.string())
        return replace(rows, columns={**rows.columns, "video": video}, plain=rows.plain & films)

    def _named(self, source: str) -> tuple[str, Kind]:
        folder, _, path = source.partition("/")
        part = part_of(path) if path else None
        return f"{self.shards.get(folder, folder)}/{path}", "film" if part is None else part.kind
