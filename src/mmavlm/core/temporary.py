"""Temporary folders that tell whose they are, so that what a killed process left can be removed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def own_folder(purpose: str) -> Path:
    """A new temporary folder of this process; those of the purpose whose processes ended go.

    Only folders of this user and machine are removed: temporary files may lie on a shared disk.
    """
    prefix = f"mmavlm-{purpose}-{_machine()}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        process = re.match(rf"{re.escape(prefix)}(\d+)-", folder.name)
        if process and folder.stat().st_uid == os.getuid() and not _runs(int(process[1])):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))


@contextmanager
def working_folder(purpose: str) -> Iterator[Path]:
    """Such a folder for as long as it is worked in."""
    folder = own_folder(purpose)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _machine() -> str:
    return re.sub(r"[^\w.]", "_", platform.node()) or "here"


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
