"""Which files and folders a reader looks at, so that what was made of them can be kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from stat import S_ISDIR

Stamp = list[int]  # of a file size and times, of a folder its time; empty if there is none
Seen = dict[Path, Stamp]

_seen: ContextVar[Seen | None] = ContextVar("seen", default=None)


@contextmanager
def looking() -> Iterator[Seen]:
    """The files and folders, there or not, that are looked at meanwhile, as they first were.

    With a file its folder is looked at, too. Who was looking already sees the files as well.
    """
    seen: Seen = {}
    outer = _seen.get()
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)
        if outer is not None:
            outer.update((p, was) for p, was in files_of(seen).items() if p not in outer)


def files_of(seen: Seen) -> Seen:
    """Those of what was looked at that are files, and are there."""
    return {path: was for path, was in seen.items() if len(was) > 1}


def named_below(root: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Paths by their names below a folder, those elsewhere by their whole path."""
    inside = ((path, path.is_relative_to(root)) for path in paths)
    return {str(path.relative_to(root if below else path.anchor)): path for path, below in inside}


def look_at(path: Path) -> Path:
    """The path, which is noted: what is made of it changes when the file or the folder does."""
    if (seen := _seen.get()) is not None and path not in seen:
        seen[path] = stamp(path)
        if len(seen[path]) > 1:
            seen.setdefault(path.parent, stamp(path.parent))
    return path


def stamp(path: Path) -> Stamp:
    """Size and times of change of a file in nanoseconds, or the time of change of a folder."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return []
    if S_ISDIR(stat.st_mode):
        return [stat.st_mtime_ns]
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
