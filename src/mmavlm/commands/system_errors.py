"""What the system refuses a command, and readers of its output who leave."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import TextIO

from mmavlm.core.errors import ConfigError

READER_LEFT = 128 + 13  # what a shell reports of a process that SIGPIPE ended
INTERRUPTED = 128 + signal.SIGINT
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (
    errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOTDIR, errno.EEXIST,
)  # fmt: skip


def refused_by_system(error: BaseException) -> str | None:
    """What to tell of what the system refuses and a user can mend, None of other errors."""
    if not isinstance(error, OSError):
        return None
    again = (
        "start the command again (a training goes on with resume=auto and the same hydra.run.dir)"
    )
    if error.errno in DISK_FULL:
        name = error.filename or "a file, or what is printed,"
        return (
            f"{name} cannot be written: {error.strerror}; make room or raise the quota, and {again}"
        )
    if error.errno in NO_ACCESS and error.filename:
        return (
            f"{error.filename} cannot be read or written: {error.strerror}; mend that, and {again}"
        )
    return None


def require_place() -> None:
    """Refuse to start in a folder that was deleted meanwhile.

    Raises:
        ConfigError: saying so.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise ConfigError(
            "the folder this was started in is gone; go to one that is there, such as cd ~"
        ) from error


def require_writable(folder: Path, setting: str) -> None:
    """Refuse a folder that cannot be made, or not be written to, before anything takes time.

    Raises:
        ConfigError: naming the setting and what is in the way.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"{setting}={folder}: {there} is a file; give a folder, there or not")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{setting}={folder}: nothing can be written to {there}; give a folder of your own"
        )


def exit_interrupted() -> None:
    """End in a line after Ctrl-C, with the exit code of a shell's own."""
    print("interrupted", file=sys.stderr)
    raise SystemExit(INTERRUPTED) from None


def exit_if_reader_left(error: Exception) -> None:
    """End in silence if nobody reads what is printed any more, as `head` does not."""
    if isinstance(error, BrokenPipeError) and _is_broken(sys.stdout):
        raise SystemExit(READER_LEFT) from None


def _is_broken(stream: TextIO) -> bool:
    """Whether nobody reads a stream any more, which is then led to nowhere."""
    try:
        print(file=stream, flush=True)  # what failed before may have left nothing to be flushed
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # else Python fails once more when it ends
        os.close(nowhere)
        return True
    return False
