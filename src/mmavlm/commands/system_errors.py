"""What the system refuses a command, and readers of its output who leave."""

from __future__ import annotations

import errno
import os
import sys
from typing import TextIO

READER_LEFT = 128 + 13  # what a shell reports of a process that SIGPIPE ended
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (
    errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOTDIR, errno.EEXIST,
)  # fmt: skip


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
