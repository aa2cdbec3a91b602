"""What a model answered in a test, and a few items to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mmavlm.core.batch import Batch
from mmavlm.metrics import Prediction, write_predictions

SAMPLE_ITEMS = 4  # of each task, and so many more that were answered wrong
MOST_ITEMS = 32
SAMPLE_FRAMES = 6


class PredictionLog:
    """All predictions of a test, and the frames of a few items of each task.

    These are the first ones, and the first that were answered wrong beside them.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Prediction] = {}
        self.frames: dict[str, list[NDArray[np.uint8]]] = {}
        self._kept: Counter[tuple[str, bool]] = Counter()  # by task, and whether first or wrong

    def extend(self, predictions: Iterable[Prediction], batch: Batch) -> None:
        """Add predictions, one for each row of `batch`; an item seen before is not added again."""
        for row, prediction in enumerate(predictions):
            if prediction.item_id in self.rows:
                continue
            self.rows[prediction.item_id] = prediction
            films = batch.films_of(row)
            if batch.frames is not None and films and self._is_sample(prediction):
                self.frames[prediction.item_id] = _thumbnails(
                    batch.frames[films[0]], batch.frame_mask[films[0]]
                )

    def _is_sample(self, prediction: Prediction) -> bool:
        """Whether one more item of this kind is to be looked at; if so it is counted."""
        for is_first in (True, False):
            kind = prediction.task, is_first
            wanted = is_first or prediction.right is False
            if wanted and self._kept[kind] < SAMPLE_ITEMS and len(self.frames) < MOST_ITEMS:
                self._kept[kind] += 1
                return True
        return False

    def gather(self) -> None:
        """Bring the rows of all processes together; every process then holds all of them."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts: list[dict[str, Prediction]] = [{}] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, self.rows)
            self.rows = {key: row for part in parts for key, row in part.items()}

    def write(self, path: Path) -> None:
        """Write one JSON row an item; the file is there whole or not at all."""
        write_predictions(path, self.rows.values())


def _thumbnails(frames: torch.Tensor, mask: torch.Tensor) -> list[NDArray[np.uint8]]:
    """A few frames (H,W,3) spread over the real ones of (T,3,H,W)."""
    real = frames[mask]
    chosen = torch.linspace(0, len(real) - 1, min(SAMPLE_FRAMES, len(real))).round().long()
    return list(real[chosen.to(real.device)].permute(0, 2, 3, 1).cpu().numpy())
