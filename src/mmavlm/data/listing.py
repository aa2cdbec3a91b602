"""Are files there: looked up by listing folders, not by asking for each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Kind = Literal["file", "folder", "any"]
TOGETHER = 1 << 16  # names looked up at once
THREADS = 16  # a listing waits for the disk, or for a server


def not_listed(
    sources: pa.ChunkedArray,
    rows: NDArray[np.int32],
    ends: NDArray[np.int64],
    folders: Sequence[Path],
    kinds: Sequence[Kind],
) -> Iterator[int]:
    """Those of `rows` of which the source is not there as its kind.

    Rows stand together by folder, those of folder k up to `ends[k]`; `kinds` is what they are to
    be there.
    """
    starts = np.concatenate([[0], ends[:-1]]).tolist()
    with ThreadPoolExecutor(THREADS) as pool:
        for some in _stretches(ends):
            listings = pool.map(listed, folders[some], kinds[some])
            parts = zip(starts[some], ends[some].tolist(), listings, strict=True)
            yield from _absent(sources, rows, list(parts))


def _stretches(ends: NDArray[np.int64]) -> Iterator[slice]:
    """Slices of folders that have about `TOGETHER` rows each."""
    first = 0
    while first < len(ends):
        before = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, before + TOGETHER, side="right")), first + 1)
        yield slice(first, last)
        first = last


def listed(folder: Path, kind: Kind) -> frozenset[str]:
    """The names of what a folder holds of a kind; none if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(e.name for e in entries if _is(e, kind))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def _is(entry: os.DirEntry[str], kind: Kind) -> bool:
    if kind == "any":
        return not entry.is_symlink() or os.path.exists(entry.path)
    return entry.is_file() if kind == "file" else entry.is_dir()


def _absent(
    sources: pa.ChunkedArray,
    rows: NDArray[np.int32],
    stretches: Sequence[tuple[int, int, frozenset[str]]],
) -> Iterator[int]:
    first, last = stretches[0][0], stretches[-1][1]
    names = [s.rpartition("/")[2] for s in sources.take(pa.array(rows[first:last])).to_pylist()]
    for start, end, listing in stretches:
        mine = names[start - first : end - first]
        if not listing.issuperset(mine):
            yield from (int(rows[start + n]) for n, name in enumerate(mine) if name not in listing)
