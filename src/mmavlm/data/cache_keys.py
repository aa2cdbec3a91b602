"""Which entries lie in a folder of the feature cache, known by their names alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SUFFIX = ".safetensors"
HEX = 16  # digits of a key that become a number
LISTERS = 16  # folders that are listed at once, for disks that are far away

Numbers = NDArray[np.uint64]


def key_numbers(keys: Iterable[str]) -> Numbers:
    """The first 64 bits of each key (n,); keys are hashes, so no two of a cache share them."""
    return np.array([int(key[:HEX], 16) for key in keys], np.uint64)


def listed_keys(folder: Path) -> list[str]:
    """The keys of the entries that have a file of their own; each sub-folder is listed once."""
    try:
        with os.scandir(folder) as found:
            below = [entry.path for entry in found if len(entry.name) == 2 and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    with ThreadPoolExecutor(LISTERS) as listers:
        return [key for keys in listers.map(_keys_in, sorted(below)) for key in keys]


def _keys_in(folder: str) -> list[str]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return [n.removesuffix(SUFFIX) for n in names if n.endswith(SUFFIX) and n[0] != "."]
