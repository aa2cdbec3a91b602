"""Who needs which entries of a feature cache: what no run needs may be removed."""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from mmavlm.core.checksums import KEY, damaged_tensors, noted
from mmavlm.data.cache_keys import Numbers
from mmavlm.data.encoder_cards import write_whole
from mmavlm.data.stored_tensors import stored_in

FOLDER = "uses"  # in that of an encoder
USE = ".use"
DAY_S = 86400.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Use:
    """The entries that some runs need, by their numbers, ascending; and what the first one said.

    `first_s` and `last_s` are when the first and the last of them noted it, in seconds since 1970.
    """

    told: str
    numbers: Numbers
    first_s: float
    last_s: float


def note_use(folder: Path, numbers: Numbers, told: str) -> None:
    """Note that a run needs these entries of an encoder's folder, and what the run is called.

    A run whose entries another one has noted shares its note, which is touched once a day at most.

    Raises:
        ConfigError: if the folder cannot be written.
    """
    if not len(numbers):
        return
    numbers = np.unique(numbers)
    path = folder / FOLDER / f"{hashlib.sha256(numbers.tobytes()).hexdigest()[:32]}{USE}"
    for noted_before in [path] if path.is_file() else _notes(folder):
        with suppress(ValueError, OSError):
            note = _read(noted_before)
            if not np.isin(numbers, note.numbers).all():
                continue
            if time.time() - note.last_s > DAY_S:
                noted_before.touch()
            return
    tensors = {"numbers": torch.from_numpy(numbers.view(np.int64))}
    about = {"told": told, "first_s": f"{int(time.time())}", KEY: noted(tensors)}
    write_whole(path, save(tensors, about))


def uses(folder: Path) -> list[Use]:
    """What was noted in an encoder's folder.

    Raises:
        ValueError: naming a note that is damaged: what it says is needed is not known.
    """
    return [_read(path) for path in _notes(folder)]


def _notes(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob(f"*{USE}"))


def _read(path: Path) -> Use:
    try:
        stored = stored_in(path)
        if damaged_tensors(stored.tensors, stored.told.get(KEY, "")):
            raise ValueError("its checksum is another")
        numbers = stored.tensors["numbers"].numpy().view(np.uint64)
        first_s = float(stored.told["first_s"])
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{path}, which says what entries a run needs, is damaged ({error}); remove it, and "
            "start the runs that use this cache once more, such as with mmavlm.cache write=false"
        ) from error
    return Use(stored.told.get("told", ""), numbers, first_s, path.stat().st_mtime)
