"""The upkeep of a feature cache: entries packed into large files, and unused ones removed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmavlm.core.errors import ConfigError
from mmavlm.data.cache_keys import SUFFIX, Numbers, key_numbers, listed_keys
from mmavlm.data.cache_uses import DAY_S, uses
from mmavlm.data.feature_cache import FeatureCache
from mmavlm.data.feature_packs import PACK_BYTES, EntryFile, Packs
from mmavlm.data.stored_tensors import stored_in

CARD = "encoder.json"

log = logging.getLogger(__name__)


@dataclass
class Count:
    """So many entries, and their bytes."""

    entries: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one more."""
        self.entries += 1
        self.bytes += size


def pack_entries(cache: FeatureCache, pack_bytes: int = PACK_BYTES) -> Count:
    """Move the entries that have files of their own into packs of about so many bytes.

    Damaged ones are named and stay. A file is removed when its pack and index are on disk, so a
    kill loses nothing; who reads meanwhile finds the entry in one place or the other.

    Raises:
        ConfigError: if the folder cannot be written, or its disk is full.
    """
    moved, waiting = Count(), iter(sorted(listed_keys(cache.folder)))
    while files := list(_some(cache, waiting, pack_bytes)):
        try:
            cache.packs.write(files)
        except OSError as error:
            raise ConfigError(
                f"{cache.packs.folder} cannot be written ({error.strerror}); make room for one "
                f"pack of {pack_bytes} bytes"
            ) from error
        for file in files:
            _path(cache.folder, file.key).unlink(missing_ok=True)
            moved.add(len(file.content))
    return moved


def _some(cache: FeatureCache, keys: Iterator[str], most: int) -> Iterator[EntryFile]:
    """The files of the next entries, until there are so many bytes."""
    total = 0
    for key in keys:
        path = _path(cache.folder, key)
        try:
            if (why := cache.damage(key, stored_in(path))) is not None:
                raise ValueError(why)
            content, made_ns = path.read_bytes(), path.stat().st_mtime_ns
        except FileNotFoundError:
            continue
        except ValueError as error:
            log.warning("damaged entry, not packed: %s: %s", path, error)
            continue
        yield EntryFile(key, content, made_ns)
        total += len(content)
        if total >= most:
            return


@dataclass
class Unused:
    """What of an encoder's entries no run has said that it needs.

    `before` are those from before any run said so, of which it is not known; `removed` says
    whether the others are gone.
    """

    encoder: str
    kept: Count = field(default_factory=Count)
    unused: Count = field(default_factory=Count)
    before: Count = field(default_factory=Count)
    needed_by: list[str] = field(default_factory=list)


class Pruning:
    """The entries below the folder of a cache that are not needed, encoder by encoder.

    Needed is what any run has noted, in the last `keep_days` if given. With `also_before` entries
    from before the first note of their encoder are unused as well.

    Raises:
        ConfigError: at `run`, if a note is damaged, so that it is not known what is needed.
    """

    def __init__(
        self, root: Path, *, keep_days: float | None = None, also_before: bool = False
    ) -> None:
        self.root = root
        self.keep_days = keep_days
        self.also_before = also_before

    def run(self, *, remove: bool = False) -> list[Unused]:
        """Count what is unused, and with `remove` remove it."""
        folders = sorted(card.parent for card in self.root.glob(f"*/{CARD}"))
        return [self._of_encoder(folder, remove=remove) for folder in folders]

    def _of_encoder(self, folder: Path, *, remove: bool) -> Unused:
        found = Unused(folder.name)
        needed, first_ns = self._needed(folder, found)
        self._loose(folder, needed, first_ns, found, remove=remove)
        packs = Packs(folder)
        for pack in packs.paths:
            self._packed(packs, pack, needed, first_ns, found, remove=remove)
        return found

    def _needed(self, folder: Path, found: Unused) -> tuple[Numbers, int]:
        """What is needed, and since when that is noted."""
        try:
            noted = uses(folder)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        since_s = 0.0 if self.keep_days is None else time.time() - self.keep_days * DAY_S
        counted = [use for use in noted if use.last_s >= since_s]
        found.needed_by = [use.told for use in counted]
        # without a note nothing is known of any entry
        first_s = min((use.first_s for use in noted), default=time.time() + DAY_S)
        numbers = [np.empty(0, np.uint64), *(use.numbers for use in counted)]
        return np.unique(np.concatenate(numbers)), int(first_s * 1e9)

    def _loose(
        self, folder: Path, needed: Numbers, first_ns: int, found: Unused, *, remove: bool
    ) -> None:
        keys = listed_keys(folder)
        for key, is_needed in zip(keys, np.isin(key_numbers(keys), needed).tolist(), strict=True):
            path = _path(folder, key)
            with suppress(FileNotFoundError):
                stat = path.stat()
                goes = self._count(found, stat.st_size, stat.st_mtime_ns, is_needed, first_ns)
                if goes and remove:
                    path.unlink()

    def _packed(
        self, packs: Packs, pack: Path, needed: Numbers, first_ns: int, found: Unused, *,
        remove: bool,
    ) -> None:  # fmt: skip
        keys, parts = packs.parts_of(pack)
        is_needed = np.isin(key_numbers(keys), needed).tolist()
        goes = [
            self._count(found, size, made_ns, one, first_ns)
            for (_, size, made_ns), one in zip(parts.tolist(), is_needed, strict=True)
        ]
        if not remove or not any(goes):
            return
        kept = [at for at, gone in enumerate(goes) if not gone]
        if kept:
            content = np.memmap(pack, np.uint8, mode="r")
            packs.write(
                EntryFile(keys[at], content[begin : begin + size].tobytes(), made_ns)
                for at in kept
                for begin, size, made_ns in [parts[at].tolist()]
            )
        packs.remove(pack)

    def _count(
        self, found: Unused, size: int, made_ns: int, is_needed: bool, first_ns: int
    ) -> bool:
        """Count an entry; whether it is to go."""
        is_before = made_ns < first_ns
        goes = not is_needed and (self.also_before or not is_before)
        count = found.kept if is_needed else found.unused if goes else found.before
        count.add(size)
        return goes


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}{SUFFIX}"
