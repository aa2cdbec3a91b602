"""What a test that was killed had answered, if that is what this one would answer."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch.distributed.tensor import DTensor

from mmavlm.core.items import Item
from mmavlm.core.keys import string_key
from mmavlm.stages.answer_file import AnswerFile
from mmavlm.stages.predictions import PredictionLog
from mmavlm.weights.checkpoint import trainable_state

log = logging.getLogger(__name__)


class Keeping(NamedTuple):
    """Where the answers of a test are kept while it runs, and the settings that they follow."""

    folder: Path
    settings: Mapping[str, Any]


def begun_log(keeping: Keeping | None, stage: L.LightningModule) -> PredictionLog:
    """The log of a test of a stage, which goes on where an earlier one was killed.

    That one must have had the same settings, weights, items and number of processes; films are
    taken to be as they were. The items it answered are left out of the batches of the trainer's
    data. Without a folder or data nothing is kept.
    """
    data: Any = getattr(stage.trainer, "datamodule", None)
    if keeping is None or data is None:
        return PredictionLog()
    items, keys = hashlib.blake2b(digest_size=16), array("q")
    for item in data.items("test"):
        keys.append(string_key(item.item_id))
        items.update(_asked(item))
    rank, processes = stage.trainer.global_rank, stage.trainer.world_size
    header = {
        **keeping.settings,
        "weights": weights_key(stage),
        "items": items.hexdigest(),
        "process": f"{rank} of {processes}",
    }
    if rank == 0:
        _remove_others(keeping.folder, processes)
    file = AnswerFile.begun(keeping.folder / f"{rank}_of_{processes}.jsonl", header)
    order = np.array(keys, np.int64)
    data.left_out = np.isin(order, np.array(file.keys, np.int64)) if file.keys else None
    return PredictionLog(file, order)


def weights_key(stage: L.LightningModule) -> str:
    """A hash of what is trained, or fitted, in a stage: of this process's share where it is spread.

    What is frozen follows from the settings.
    """
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(trainable_state(stage).items()):
        own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        found.update(f"{name} {tuple(own.shape)} {own.dtype}".encode())
        plain = own.detach().cpu().contiguous().flatten()
        found.update(plain.view(torch.uint8).numpy().data)
    return found.hexdigest()


def _asked(item: Item) -> bytes:
    """What makes an item what it is: what it shows, asks and counts as right."""
    told = (item.item_id, item.task, item.conversation, item.references, item.options)
    return repr(told).encode(errors="surrogatepass")


def _remove_others(folder: Path, processes: int) -> None:
    """Remove what other numbers of processes answered, whose batches were others."""
    others = [p for p in folder.glob("*_of_*.jsonl") if not p.stem.endswith(f"_of_{processes}")]
    for path in others:
        path.unlink(missing_ok=True)
    if others:
        log.warning(
            "%s holds answers of a test by another number of processes than %d, which are not "
            "taken, since their batches were others", folder, processes,
        )  # fmt: skip
