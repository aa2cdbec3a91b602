"""Sets that lie in shards: what they hold, and which items are made of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.core.options import Style
from mmavlm.core.settings import whole_at_least
from mmavlm.data.readers.annotations import SplitFiles, known_split, listed
from mmavlm.data.readers.captions import CaptionReader
from mmavlm.data.readers.entries import Found, SkippingReader
from mmavlm.data.readers.own import OwnReader
from mmavlm.data.readers.rows import Row
from mmavlm.data.shards.fetching import LostShardError
from mmavlm.data.shards.index import Entry, Shard
from mmavlm.data.shards.members import part_of
from mmavlm.data.shards.packed_items import item_of
from mmavlm.data.shards.places import AT_ONCE, Place, Told, shards_of
from mmavlm.data.shards.store import ShardStore
from mmavlm.data.shards.tables import Columns

log = logging.getLogger(__name__)

USUAL = "%s-*.{tar,parquet}"
ROWS = ("captions", "questions")


class Kept(NamedTuple):
    """A line of the index of a shard."""

    shard: Shard
    entry: Entry

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.shard.place.name}/{self.entry.get('key', '')}"


class ShardReader(SkippingReader):
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

    kept = False  # by whoever keeps items by the files of a disk: those of a bucket change unseen

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
        self.at = str(root)
        self.frame_fps = frame_fps
        self.films = store
        store.mixed = mixed
        self.patterns = {"train": train, "val": val, "test": test}
        self.columns = Columns(video, suffix)
        self._seen: dict[str, list[Shard]] = {}
        self.rows: OwnReader | CaptionReader
        if rows == "questions":
            self.rows = OwnReader(closed=closed, options=options, keys=keys)
        else:
            self.rows = CaptionReader(max_words=max_words, keys=keys)
        self.rows.files = _RowsOfShards(self.rows.files, self._rows)

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """The items of the shards of a split, and what cannot be used.

        Raises:
            ConfigError: if a file system cannot be used, or a task is given of captions.
            DataError: if there are no shards, or none can be read.
        """
        shards = self._shards(split)
        items: list[Item] = []
        skipped = dict(self.films.unread.get(split, {}))
        foreign = False
        for kept in self._kept(shards):
            if "problem" in kept.entry:
                skipped[kept.place] = f"{kept.shard.place}, {kept.entry['key']}: " + str(
                    kept.entry["problem"]
                )
            elif "item" in kept.entry:
                items += self._packed(kept, task, skipped)
            else:
                foreign = True
        if not foreign:
            return Found(items, skipped)
        found = self.rows.read(self.films.root, split, task)
        names = {shard.folder: shard.place.name for shard in shards}
        items += [_named(item, names, self.films.root) for item in found.items]
        return Found(items, {**skipped, **found.skipped}, found.notes)

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """Closed task → its classes.

        Raises:
            DataError: if shards were packed with other classes than the rest.
        """
        found: dict[str, list[str]] = {}
        foreign = False
        for shard in self._shards("train"):
            _, header = self.films.index.shard(shard.folder)
            foreign |= not header.packed
            for name, classes in header.classes.items():
                if found.setdefault(name, list(classes)) != list(classes):
                    raise DataError(
                        f"{shard.place} was packed with other classes of task {name} than the "
                        "shards before it; pack them all at once"
                    )
        own = self.rows.classes(self.films.root, task) if foreign else {}
        return {name: classes for name, classes in {**own, **found}.items() if _asked(name, task)}

    def _shards(self, split: str) -> list[Shard]:
        """The shards of a split that can be read; looked for once."""
        if split not in self._seen:
            patterns = self.patterns[known_split(split)] or USUAL % split
            try:
                found = shards_of(self.at, patterns, self.films.options)
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

    def _looked_at(self, split: str, found: Sequence[tuple[Place, Told | None]]) -> list[Shard]:
        """The shards that have an index, which is made of those that lack one."""
        look = self.films.look
        with ThreadPoolExecutor(AT_ONCE) as pool:
            outcomes = list(pool.map(lambda one: look(one[0], one[1], self.columns), found))
        unread = {
            place.name: str(outcome)
            for (place, _), outcome in zip(found, outcomes, strict=True)
            if isinstance(outcome, LostShardError)
        }
        self.films.unread[split] = unread
        if len(unread) == len(found):
            raise DataError(
                f"none of {len(found)} shards can be read: {next(iter(unread.values()))}"
            )
        return [self._fitting(outcome) for outcome in outcomes if isinstance(outcome, Shard)]

    def _fitting(self, shard: Shard) -> Shard:
        """A shard whose JPEGs, if it holds any, are read at the rate they were taken at."""
        rate = self.films.index.shard(shard.folder)[1].frame_fps
        if None not in (rate, self.frame_fps) and rate != self.frame_fps:
            raise ConfigError(
                f"{shard.place} holds JPEGs at {rate:g} a second, but data.frame_fps is "
                f"{self.frame_fps:g}; set data.frame_fps={rate:g}"
            )
        return shard

    def _kept(self, shards: Sequence[Shard]) -> Iterator[Kept]:
        of_each = ((Kept(shard, e) for e in self.films.index.entries(shard)) for shard in shards)
        return chain.from_iterable(of_each)

    def _packed(
        self, kept: Kept, task: str | Sequence[str] | None, skipped: dict[str, str]
    ) -> list[Item]:
        try:
            item = item_of(kept.entry["item"], self.films.root / kept.shard.folder)
        except DataError as error:
            skipped[f"{kept.place}{len(skipped)}"] = f"{kept.shard.place}: {error}"
            return []
        return [item] if _asked(item.task, task) else []

    def _rows(self, split: str) -> Iterator[Row]:
        """The rows of shards that others have packed."""
        path = Path(str(self.patterns[split] or USUAL % split))
        for kept in self._kept(self._shards(split)):
            entry = kept.entry
            if "film" in entry:
                video = f"{kept.shard.folder}/{entry['film']}"
                values = {"id": kept.place, **entry["values"], "video": video}
                yield Row(path, kept.place, values)


class _RowsOfShards(SplitFiles):
    """Rows that come from shards where others come from files."""

    def __init__(self, files: SplitFiles, rows: Callable[[str], Iterator[Row]]) -> None:
        self.__dict__.update(vars(files))
        self._of_split = rows

    def path(self, root: Path, split: str) -> Path:
        return Path(f"the {split} shards")

    def _all(self, root: Path, split: str) -> Iterator[Row]:
        return self._of_split(split)


def _asked(name: str, task: str | Sequence[str] | None) -> bool:
    return task is None or name in listed(task)


def _named(item: Item, shards: Mapping[str, str], root: Path) -> Item:
    """An item whose film is called as its shard and its place in it, whatever folder it goes to."""
    film = item.film
    folder, *rest = film.source.relative_to(root).parts
    path = "/".join(rest)
    part = part_of(path)
    kind = "film" if part is None else part.kind  # none of a folder of frames
    named = replace(film, medium_id=f"{shards[folder]}/{path}", kind=kind)
    return replace(item, conversation=replace(item.conversation, media=(named,)))
