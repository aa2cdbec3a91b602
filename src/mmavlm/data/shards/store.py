"""The films of shards: fetched when they are read, and kept on a disk of this machine."""

from __future__ import annotations

import json
import logging
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmavlm.core.errors import ConfigError, MmavlmError
from mmavlm.core.files import write_whole
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.settings import above_zero, whole_at_least
from mmavlm.data.films import NOTHING, Nearby, There
from mmavlm.data.items import ColumnItems, present, sources_of
from mmavlm.data.names import Names
from mmavlm.data.shards.fetching import LostShardError, Patience, Try, fetch
from mmavlm.data.shards.index import Header, IndexFiles, Shard, kind_of, members_of
from mmavlm.data.shards.places import Options, Place, Told
from mmavlm.data.shards.reading import DamagedShardError, unpack
from mmavlm.data.shards.room import Room
from mmavlm.data.shards.tables import Columns

T = TypeVar("T")

log = logging.getLogger(__name__)

INDEX, DEAD, FETCHED = ".index", ".dead", ".fetched"
GB = 10**9
DEAD_FOR_S = 600  # so long nobody tries again to have what could not be had
READ_AT_ONCE = 2**22
MIXED = 8


class ShardStore:
    """Shards on a disk of this machine: in the folder `cache`, of `gb` gigabytes at most.

    A shard is fetched once for all processes of the machine, and unpacked; the longest unused give
    way. It is tried `tries` times to have one, and `fetch_s` seconds in all. In training `ahead`
    shards are fetched before they are read. `options` are what the file system takes, such as
    {anon: true}; keys are better left to the environment.

    Raises:
        ConfigError: if a number is out of range.
    """

    at_hand = False

    def __init__(
        self,
        cache: str | Path,
        gb: float = 100,
        tries: int = 5,
        fetch_s: float = 300,
        ahead: int = 1,
        options: Options | None = None,
    ) -> None:
        above_zero("data.reader.store", gb=gb)
        whole_at_least("data.reader.store", 0, ahead=ahead)
        self.ahead = ahead
        self.patience = Patience(tries, fetch_s)
        self.root = Path(cache).expanduser().absolute()
        self.options = dict(options or {})
        self.index = IndexFiles(self.root / INDEX, self.options)
        self.room = Room(self.root, int(gb * GB), fetch_s)
        self.mixed = MIXED  # of how many shards films are mixed at a time: its reader says
        # split → shards of which not even an index could be had, and why
        self.unread: dict[str, dict[str, str]] = {}

    def folder(self, root: str | Path, asked: Mapping[str, object] = NOTHING) -> Path:
        """The folder below which films lie once they are there.

        Raises:
            ConfigError: if it cannot be written, or a setting is made that needs all films at hand.
        """
        if made := [name for name, value in asked.items() if value]:
            raise ConfigError(
                f"{' and '.join(made)} needs all films at hand, and those of shards come as they "
                "are read; leave it out, or give the set that the shards were made of"
            )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"data.reader.store.cache={self.root} cannot be written ({error.strerror}); give "
                "a folder on a disk of this machine"
            ) from error
        return self.root

    def there(self, split: str, items: Sequence[Item]) -> There:
        """All films that items show; missing are those of shards that nobody could look into.

        How many films these hold nobody knows; they count as many as others hold on average.
        """
        unread = self.unread.get(split, {})
        whole = isinstance(items, ColumnItems)
        films = present(items).films if whole else Names.of(sources_of(items))
        shards, _ = self._shards_of(items)
        average = max(1, round(len(films) / max(1, len(shards))))
        missing = {
            f"{shard}, film {number + 1} of about {average}": why
            for shard, why in unread.items()
            for number in range(average)
        }
        return There(films | Names.of(missing), missing, items)

    def nearby(self, items: Sequence[Item]) -> Nearby:
        """In which shard the first film of each item lies."""
        shards, numbers = self._shards_of(items)
        return Nearby(numbers, ((len(shards), self.mixed),), self.ahead)

    def _shards_of(self, items: Sequence[Item]) -> tuple[list[str], NDArray[np.int32]]:
        """The folders of the shards that items are of, and (N,) the number of each, -1 for none."""
        if isinstance(items, ColumnItems):
            # Imported here, since few have so many items.
            from mmavlm.data.item_table import ItemTable

            if isinstance(items, ItemTable):
                return items.folders()
        numbers: dict[str | None, int] = {None: -1}
        found = np.empty(len(items), np.int32)
        for at, item in enumerate(items):
            media = item.conversation.media
            name = self._name(media[0].source) if media else None
            found[at] = numbers.setdefault(name, len(numbers) - 1)
        return [name for name in numbers if name is not None], found

    @contextmanager
    def lent(self, medium: Medium) -> Iterator[None]:
        """Have the shard of a film there, and keep it there meanwhile.

        Raises:
            LostShardError: naming the shard, and why it cannot be had.
        """
        name = self._name(medium.source)
        if name is None:
            yield
            return
        while True:
            with self.room.reading(name) as there:
                if there:
                    yield
                    return
            self.bring(name)

    def fetch(self, medium: Medium) -> None:
        """Have the shard of a film there, if it can be had; else lending a film of it tells."""
        if (name := self._name(medium.source)) is not None:
            with suppress(MmavlmError, OSError):
                self.bring(name)

    def look(self, place: Place, told: Told | None, columns: Columns) -> Shard | LostShardError:
        """A shard whose index is there, after making it if need be; or why it cannot be had.

        Raises:
            ConfigError: if its file system cannot be used.
        """
        if told is not None and self.index.has(shard := Shard(place, told, columns)):
            return shard
        kind_of(place)
        name = Shard(place, told or Told(), columns).folder

        def work(one: Try) -> Shard:
            shard = Shard(place, told or place.told(), columns)
            if not self.index.has(shard):
                self.index.make(shard, one)
            return shard

        try:
            with self.room.making(name):  # by one process of this machine alone
                self._refuse_dead(name)
                return self._tried("read", name, place, work)
        except LostShardError as error:
            return error

    def bring(self, name: str) -> None:
        """Fetch and unpack a shard, by the name of its folder, if it is not there.

        Raises:
            LostShardError: naming the shard, and why it cannot be had.
        """
        with self.room.making(name):
            if self.room.has(name):
                return
            self._refuse_dead(name)
            shard, header = self.index.shard(name)
            work = partial(self._bring, name, shard, header)
            self._tried("fetched", name, shard.place, work)

    def _tried(self, what: str, name: str, place: Place, work: Callable[[Try], T]) -> T:
        """What `work` comes to; a shard that cannot be had is remembered for a while."""
        try:
            return self.patience.try_to(what, place, work)
        except LostShardError as error:
            log.warning("%s; its films are left out", error)
            told: dict[str, Any] = {"at_s": time.time(), "why": str(error)}
            write_whole(self.root / DEAD / name, json.dumps(told).encode())
            raise

    def _bring(self, name: str, shard: Shard, header: Header, one: Try) -> None:
        size = shard.told.size if shard.told.size is not None else shard.place.told().size
        folder = self.room.reserved(name, 2 * (size or 0))
        try:
            if shard.place.is_local:
                path = Path(shard.place.system()[1])
            else:
                path = fetch(shard.place, folder / FETCHED, size, one)
            if header.crc32 is not None and (came := file_crc32(path, one)) != header.crc32:
                raise DamagedShardError(f"its checksum is {came:08x}, expected {header.crc32:08x}")
            one.check()
            with path.open("rb") as file:
                written = unpack(members_of(shard, file), folder, self.room.most_bytes)
            shutil.rmtree(folder / FETCHED, ignore_errors=True)
            one.check()
            self.room.put(name, folder, written)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _name(self, path: Path) -> str | None:
        """The name of the folder that a shard is unpacked to; None for a path elsewhere."""
        return path.relative_to(self.root).parts[0] if path.is_relative_to(self.root) else None

    def _refuse_dead(self, name: str) -> None:
        mark = self.root / DEAD / name
        with suppress(OSError, ValueError):
            told = json.loads(mark.read_text(encoding="utf-8"))
            if 0 <= time.time() - told["at_s"] < DEAD_FOR_S:
                raise LostShardError(told["why"])


def file_crc32(path: Path, one: Try | None = None) -> int:
    """CRC-32 of a file, read in pieces."""
    found = 0
    with path.open("rb") as file:
        while piece := file.read(READ_AT_ONCE):
            found = zlib.crc32(piece, found)
            if one is not None:
                one.check()
    return found
