"""The shards of a split: where they lie, which can be read, and the lines of their indices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.readers.annotations import known_split
from mmavlm.data.shards.fetching import LostShardError
from mmavlm.data.shards.index import Entry, Header, Shard
from mmavlm.data.shards.places import AT_ONCE, Place, Told, shards_of
from mmavlm.data.shards.store import ShardStore
from mmavlm.data.shards.tables import Columns

USUAL = "%s-*.{tar,parquet}"


class Kept(NamedTuple):
    """A line of the index of a shard."""

    shard: Shard
    entry: Entry

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.shard.name}/{self.entry.get('key', '')}"


class ShardSplits:
    """The shards below `at`, split by split; each is looked for once.

    `patterns` are their names (None: `<split>-*.tar` or `.parquet`), `frame_fps` the rate at which
    JPEGs are read.
    """

    def __init__(
        self,
        at: str,
        store: ShardStore,
        patterns: Mapping[str, str | Sequence[str] | None],
        columns: Columns,
        frame_fps: float | None,
    ) -> None:
        self.at = at
        self.store = store
        self.patterns = patterns
        self.columns = columns
        self.frame_fps = frame_fps
        self._seen: dict[str, list[tuple[Shard, Header]]] = {}

    def pattern(self, split: str) -> str | Sequence[str]:
        """The names of a split's shards."""
        return self.patterns[known_split(split)] or USUAL % split

    def shards(self, split: str) -> list[tuple[Shard, Header]]:
        """The shards of a split that can be read, with the headers of their indices.

        Raises:
            ConfigError: if a file system cannot be used, or JPEGs are of another rate.
            DataError: if there are no shards, or none can be read.
        """
        if split not in self._seen:
            patterns = self.pattern(split)
            try:
                found = shards_of(self.at, patterns, self.store.options)
            except OSError as error:
                reason = Place(self.at).reason(error)
                raise DataError(f"data.root={Place(self.at)} cannot be listed: {reason}") from None
            if not found:
                raise DataError(
                    f"no shards {patterns} lie below data.root={Place(self.at)}; name them with "
                    f"data.reader.{split}="
                )
            self._seen[split] = self._looked_at(split, found)
        return self._seen[split]

    def unread(self, split: str) -> dict[str, str]:
        """Shards of which not even an index can be had, and why."""
        self.shards(split)
        return self.store.unread[split]

    def kept(self, split: str, *, packed: bool) -> Iterator[Kept]:
        """The lines of all indices of shards that mmavlm has packed, or of those of others."""
        for shard, header in self.shards(split):
            if header.packed == packed:
                yield from (Kept(shard, entry) for entry in self.store.index.entries(shard))

    def has(self, split: str, *, packed: bool) -> bool:
        """Whether any shard was packed by mmavlm, or by others."""
        return any(header.packed == packed for _, header in self.shards(split))

    def _looked_at(
        self, split: str, found: Sequence[tuple[Place, Told | None]]
    ) -> list[tuple[Shard, Header]]:
        """The shards that have an index, which is made of those that lack one."""
        look = self.store.look
        with ThreadPoolExecutor(AT_ONCE) as pool:
            outcomes = list(pool.map(lambda one: look(one[0], one[1], self.columns), found))
        unread = {
            place.name: str(outcome)
            for (place, _), outcome in zip(found, outcomes, strict=True)
            if isinstance(outcome, LostShardError)
        }
        self.store.unread[split] = unread
        if len(unread) == len(found):
            raise DataError(
                f"none of {len(found)} shards can be read: {next(iter(unread.values()))}"
            )
        return [self._fitting(outcome) for outcome in outcomes if isinstance(outcome, Shard)]

    def _fitting(self, shard: Shard) -> tuple[Shard, Header]:
        """A shard whose JPEGs, if it holds any, are read at the rate they were taken at."""
        _, header = self.store.index.shard(shard.folder)
        rate = header.frame_fps
        if None not in (rate, self.frame_fps) and rate != self.frame_fps:
            raise ConfigError(
                f"{shard.place} holds JPEGs at {rate:g} a second, but data.frame_fps is "
                f"{self.frame_fps:g}; set data.frame_fps={rate:g}"
            )
        return shard, header
