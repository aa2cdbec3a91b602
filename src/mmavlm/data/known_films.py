"""What a feature cache remembers of films, so that not each is looked at on every start.

A film has changed when its size or time of change has, and to know that it must be looked at: one
request a film, which takes minutes where a million lie on a disk that is far away. So a start takes
what was remembered, and each film is looked at when its features are read. What changed meanwhile
is then told, and never taken.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from mmavlm.core.checksums import KEY, damaged_tensors, noted
from mmavlm.core.errors import ConfigError
from mmavlm.core.keys import string_key
from mmavlm.data.cache_keys import LISTERS
from mmavlm.data.encoder_cards import write_whole
from mmavlm.data.stored_tensors import stored_in

FILE = "films.known"
FRAMES = "frames"  # how the identity of a folder of pictures begins
AT_ONCE = 1000  # films that a thread looks at in turn

Identity = list[int | str]


class KnownFilms:
    """The identities of films that a cache below `root` remembers, by where they lie."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE
        self._table: NDArray[np.int64] = np.empty((0, 4), np.int64)  # key, pictures, size, time
        with suppress(FileNotFoundError, ValueError, KeyError):  # then it is made anew
            stored = stored_in(self.path)
            if not damaged_tensors(stored.tensors, stored.told.get(KEY, "")):
                self._table = stored.tensors["films"].numpy()

    def __bool__(self) -> bool:
        return len(self._table) > 0

    def identities(self, sources: Sequence[Path]) -> list[Identity]:
        """What is remembered of each film; those that are not remembered are looked at."""
        keys = np.array([string_key(str(source)) for source in sources], np.int64)
        place = np.searchsorted(self._table[:, 0], keys)
        place[place == len(self._table)] = 0
        known = self._table[place, 0] == keys if len(self._table) else np.zeros(len(keys), bool)
        new = iter(identities([s for s, k in zip(sources, known.tolist(), strict=True) if not k]))
        rows = self._table[place].tolist() if len(self._table) else [[]] * len(keys)
        return [
            _identity(source, row) if is_known else next(new)
            for source, row, is_known in zip(sources, rows, known.tolist(), strict=True)
        ]

    def remember(self, films: Sequence[tuple[Path, Identity]]) -> None:
        """Remember films by their identities, beside those that are known of others.

        A folder that cannot be written is left as it is.
        """
        rows = [(string_key(str(path)), *_numbers(identity)) for path, identity in films
                if len(identity) > 2]  # fmt: skip  # the others could not be read
        both = np.concatenate([np.array(rows, np.int64).reshape(-1, 4), self._table])
        _, first = np.unique(both[:, 0], return_index=True)
        if np.array_equal(both[first], self._table):
            return
        self._table = both[first]
        tensors = {"films": torch.from_numpy(self._table)}
        with suppress(ConfigError):
            write_whole(self.path, save(tensors, {KEY: noted(tensors)}))


def identities(sources: Sequence[Path]) -> list[Identity]:
    """`identity` of each film, of many at once."""
    parts = [sources[start : start + AT_ONCE] for start in range(0, len(sources), AT_ONCE)]
    if len(parts) < 2:
        return [identity(source) for source in sources]
    with ThreadPoolExecutor(LISTERS) as threads:
        found = threads.map(lambda part: [identity(source) for source in part], parts)
        return [one for part in found for one in part]


def identity(source: Path) -> Identity:
    """What changes when a film does: its size and time of change, or those of all its pictures."""
    try:
        if source.is_dir():
            stats = [entry.stat() for entry in os.scandir(source)]
            changed = max((stat.st_mtime_ns for stat in stats), default=0)
            return [FRAMES, len(stats), sum(stat.st_size for stat in stats), changed]
        stat = source.stat()
    except OSError as error:  # told when it is decoded
        return ["unreadable", type(error).__name__]
    return [source.suffix, stat.st_size, stat.st_mtime_ns]


def _numbers(identity: Identity) -> tuple[int, int, int]:
    """Pictures, -1 for a file; size; time of change."""
    *pictures, size, changed = identity[1:]
    return int(pictures[0]) if pictures else -1, int(size), int(changed)


def _identity(source: Path, row: Sequence[int]) -> Identity:
    _, pictures, size, changed = row
    if pictures >= 0:
        return [FRAMES, pictures, size, changed]
    return [source.suffix, size, changed]
