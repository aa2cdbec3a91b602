"""A folder of bounded size that processes of a machine share: locks, and what gives way."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmavlm.core.errors import ConfigError
from mmavlm.core.files import PARTIAL, write_whole
from mmavlm.data.shards.fetching import LostShardError

log = logging.getLogger(__name__)

MARK = ".bytes"  # in a folder that is whole: how many bytes it takes; changed when it is used
POLL_S = 0.02
RESERVED = ".reserved"  # in a folder that is being filled: how many bytes it may take
LOCKS = ".locks"
ROOM = "room"


class Room:
    """Folders below `folder`, together at most `most_bytes`; the longest unused give way.

    A folder is read under a shared lock, and made or removed under one of its own, so none goes
    while it is read. Locks end with their process. `wait_s` is how long one is waited for.
    """

    def __init__(self, folder: Path, most_bytes: int, wait_s: float) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self.wait_s = wait_s

    def path(self, name: str) -> Path:
        """Where a folder of the room lies."""
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether a folder is there, whole."""
        return (self.path(name) / MARK).is_file()

    @contextmanager
    def reading(self, name: str) -> Iterator[bool]:
        """Keep a folder from giving way; whether it is there."""
        with self._locked(name, fcntl.LOCK_SH):
            there = self.has(name)
            if there:
                with suppress(OSError):  # a cache that may only be read
                    os.utime(self.path(name) / MARK)
            yield there

    @contextmanager
    def making(self, name: str) -> Iterator[None]:
        """Keep a folder for this process, to make it with `put`."""
        with self._locked(name, fcntl.LOCK_EX):
            yield

    def put(self, name: str, partial: Path, size: int) -> None:
        """Make what was filled the folder of this name, if there is none yet."""
        if self.has(name):
            return
        shutil.rmtree(self.path(name), ignore_errors=True)  # without a mark it is of no use
        (partial / RESERVED).unlink()
        write_whole(partial / MARK, str(size).encode())
        os.replace(partial, self.path(name))

    def reserved(self, name: str, needed: int) -> Path:
        """A new empty folder to fill with up to `needed` bytes, which `put` moves.

        What was used the longest ago gives way. Only within `making`.

        Raises:
            ConfigError: if there cannot be room, or none comes in `wait_s` seconds.
        """
        until = time.monotonic() + self.wait_s
        while True:
            with self._locked(ROOM, fcntl.LOCK_EX):
                if self._made_way(needed):
                    partial = self.folder / f"{name}.{uuid.uuid4().hex}{PARTIAL}"
                    partial.mkdir()
                    write_whole(partial / RESERVED, str(needed).encode())
                    return partial
            if needed > self.most_bytes or time.monotonic() > until:
                raise ConfigError(
                    f"{needed} bytes, for a shard and what is in it, have no room in "
                    f"{self.folder}: it may take {self.most_bytes}; raise data.reader.store.gb"
                )
            time.sleep(10 * POLL_S)

    def used_bytes(self) -> int:
        """What the whole folders take."""
        return sum(size for _, size, _ in self._held())

    def _made_way(self, needed: int) -> bool:
        held = sorted(self._held())
        total = sum(size for _, size, _ in held) + self._promised() + needed
        for _, size, name in held:
            if total <= self.most_bytes:
                break
            if self._removed(name):
                total -= size
        return total <= self.most_bytes

    def _held(self) -> list[tuple[float, int, str]]:
        """When each folder was used last, its bytes, and its name."""
        found = []
        for mark in self.folder.glob(f"*/{MARK}"):
            with suppress(OSError, ValueError):  # gone meanwhile
                if not mark.parent.name.endswith(PARTIAL):
                    used_s, size = mark.stat().st_mtime, int(mark.read_text())
                    found.append((used_s, size, mark.parent.name))
        return found

    def _promised(self) -> int:
        """Bytes that are being filled; what a process left that was killed is removed."""
        total = 0
        for partial in self.folder.glob(f"*{PARTIAL}"):
            with self._lock_file(partial.name.split(".")[0]) as lock:
                if _taken(lock):
                    shutil.rmtree(partial, ignore_errors=True)
                    continue
            with suppress(OSError, ValueError):  # moved meanwhile
                total += int((partial / RESERVED).read_text())
        return total

    def _removed(self, name: str) -> bool:
        """Remove a folder if nobody reads it."""
        with self._lock_file(name) as lock:
            if not _taken(lock):
                return False
            gone = self.folder / f"{name}.{uuid.uuid4().hex}{PARTIAL}"
            os.replace(self.path(name), gone)  # at once, so that no half of it is ever read
            shutil.rmtree(gone, ignore_errors=True)
            return True

    @contextmanager
    def _locked(self, name: str, how: int) -> Iterator[None]:
        until = time.monotonic() + 2 * self.wait_s  # who holds it may be trying that long
        with self._lock_file(name) as lock:
            while not _taken(lock, how):
                if time.monotonic() > until:
                    raise LostShardError(
                        f"{self.path(name)} is held by another process for more than "
                        f"{2 * self.wait_s:.0f} s; see what it does"
                    )
                time.sleep(POLL_S)
            yield

    @contextmanager
    def _lock_file(self, name: str) -> Iterator[int]:
        """The file of a lock, which is given back in the end."""
        locks = self.folder / LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        lock = os.open(locks / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield lock
        finally:
            # said, and not left to closing it: a process forked meanwhile holds the file as well
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)


def _taken(lock: int, how: int = fcntl.LOCK_EX) -> bool:
    """Whether a lock could be had at once."""
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
