"""Files that others may read and write at the same time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import platform
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmavlm.core.errors import ConfigError

log = logging.getLogger(__name__)

LOCK = ".lock"  # in a run's folder; stays there, only its lock comes and goes
PARTIAL = ".partial"
BEFORE_DAMAGE = "before_damage.ckpt"  # of a run whose numbers were no longer finite


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, whoever else writes or reads it.

    Raises:
        OSError: if the folder cannot be written, or its disk is full.
    """
    with written_whole(path) as partial:
        partial.write_bytes(content)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, moved there if all went well and removed otherwise.

    Raises:
        OSError: if the folder cannot be written, or its disk is full.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits.

    Raises:
        OSError: if the file cannot be read.
    """
    found = hashlib.sha256()
    with path.open("rb") as file:
        while some := file.read(1 << 20):
            found.update(some)
    return found.hexdigest()


def remove_partials(folder: Path) -> None:
    """Remove what `written_whole` left in a folder when a process was killed meanwhile."""
    for partial in folder.glob(f".*{PARTIAL}"):
        partial.unlink(missing_ok=True)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep a folder for this process, and refuse it if another one has it.

    The lock ends with its process, however that ends, so none is ever stale. Processes forked from
    this one do not hold it. File systems without locks are told of in the log.

    Raises:
        ConfigError: if another process has it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror}); give another hydra.run.dir"
        ) from error
    with file:
        try:
            # of a process, not of an open file as flock: workers that outlive it would keep that
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise ConfigError(
                    f"{folder} is in use by another run ({file.read().strip() or 'just started'}); "
                    "wait for it, or give another hydra.run.dir"
                ) from None
            log.warning("%s cannot be locked (%s): start no other run there", folder, error)
        else:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
        yield


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Wait until no other process is within the same lock; it ends with its process.

    File systems without locks let all in.

    Raises:
        OSError: if the lock's folder cannot be written.
    """
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            log.info("%s cannot be locked (%s)", lock, error)
        yield
