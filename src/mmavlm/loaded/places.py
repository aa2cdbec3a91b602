"""Where a name leads that a user gives: a checkpoint, a run, an exported folder, the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mmavlm.core.errors import ConfigError
from mmavlm.core.given_files import checkpoint_of_run, require_checkpoint
from mmavlm.core.medium import Kind
from mmavlm.loaded.given import as_path

if TYPE_CHECKING:
    import torch

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(?<!\.ckpt)")
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
SOUNDS = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac"}


def checkpoint_of(name_or_path: str | Path, revision: str | None = None) -> Path:
    """The checkpoint's file, or the exported folder, behind a path or a name on the hub.

    Of a run it is the best checkpoint, or else the last.

    Raises:
        CheckpointError: if nothing is there, a run has no checkpoint, or the hub cannot give it.
        ConfigError: if it is no text and no path.
    """
    path = as_path("the name of the model", name_or_path)
    if path.is_dir():
        return checkpoint_of_run(path)
    # a name whose first part is a folder here is meant as a path
    here = path.parent.is_dir() and path.parent != Path()
    if path.exists() or here or not HUB_NAME.fullmatch(str(name_or_path)):
        require_checkpoint(path)
        return path
    from mmavlm.hub import fetched  # here, so that what is on no disk is told without torch

    return fetched(name_or_path, revision)


def kind_of(path: str | Path) -> Kind:
    """What a file is by its ending: a picture, a sound, or else a film."""
    ending = Path(path).suffix.lower()
    return "picture" if ending in PICTURES else "sound" if ending in SOUNDS else "film"


def device_of(name: str | torch.device) -> torch.device | None:
    """The device of a name; None for `auto`, which is a GPU if there is one.

    Raises:
        ConfigError: if there is no such device.
    """
    import torch

    if name == "auto":
        return None
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device={str(name)!r} is not there ({str(error).splitlines()[0]}); choose auto, cpu, "
            "cuda or cuda:1"
        ) from error
    return device


def dtype_of(name: str | torch.dtype | None) -> torch.dtype | None:
    """The dtype of a name; None, or `auto`, leaves each part its own.

    Raises:
        ConfigError: if weights cannot have it.
    """
    from mmavlm.weights.pretrained import DTYPES

    if name is None or name == "auto":
        return None
    found = DTYPES.get(str(name).removeprefix("torch."))
    if found is None:
        raise ConfigError(f"dtype={str(name)!r} is unknown; choose auto, {', '.join(DTYPES)}")
    return found
