"""Which files and folders a reader looks at, so that what was made of them can be kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_seen: ContextVar[set[Path] | None] = ContextVar("seen", default=None)


@contextmanager
def looking() -> Iterator[set[Path]]:
    """The files and folders, there or not, that are looked at meanwhile."""
    seen: set[Path] = set()
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


def look_at(path: Path) -> Path:
    """The path, which is noted: what is made of it changes when the file or the folder does."""
    if (seen := _seen.get()) is not None:
        seen.add(path)
    return path
