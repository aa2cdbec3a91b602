"""Checkpoints on disk: whole or not at all, also where the disk is full."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mmavlm.core.errors import CheckpointError
from mmavlm.core.files import written_whole

MIB = 2**20


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, syncs it and moves it there.

    Lightning's own goes through the folder for temporary files, from which it is copied if that is
    on another disk: neither in one move nor synced.

    Raises:
        CheckpointError: if it cannot be written; the one that was there before stays.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` to `path`; addresses of other file systems are left to Lightning."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            with written_whole(Path(path)) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            cause = _of_disk(error)
            if cause is None:
                raise
            raise CheckpointError(_not_written(Path(path), checkpoint, cause)) from error


def _of_disk(error: BaseException) -> OSError | None:
    """What the disk had to say; torch's writer hides it behind an error of its own."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    return found


def _not_written(path: Path, checkpoint: dict[str, Any], error: OSError) -> str:
    needed = sum(tensor.nbytes for tensor in _tensors(checkpoint))
    folder = next(f for f in path.absolute().parents if f.is_dir())
    free = shutil.disk_usage(folder).free
    return (
        f"checkpoint {path} cannot be written: {error.strerror or error}; it needs about {needed} "
        f"bytes ({needed / MIB:.1f} MiB), and {free} ({free / MIB:.1f} MiB) are free on its disk. "
        f"Earlier checkpoints in {path.parent} are as they were: make room, raise the quota or let "
        "the folder be written, and go on with resume=auto and the same hydra.run.dir"
    )


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)
