"""What a model answered, one row an item, and a few items to look at."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mmavlm.batch import VideoTextBatch
from mmavlm.interfaces import Answer
from mmavlm.stages.answering import Answered

SAMPLE_ITEMS = 12
SAMPLE_FRAMES = 6


@dataclass(frozen=True)
class Prediction:
    """Generated answers and ranked classes (either may be empty), best first, for one item.

    `references` are all texts that count as right, the truth among them. Where a question brings
    options, `answers` are those named by what was `said`.
    """

    item_id: str
    video_id: str
    task: str
    prompt: str
    truth: str
    answers: list[Answer]
    ranking: list[Answer]
    references: list[str]
    said: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, batch: VideoTextBatch, row: int, answered: Answered) -> Prediction:
        """The prediction for one row of a batch."""
        return cls(
            item_id=batch.item_id[row],
            video_id=batch.video_id[row],
            task=batch.task[row],
            prompt=batch.prompt[row],
            truth=batch.target[row],
            answers=answered.generated,
            ranking=answered.ranked,
            references=list(batch.references[row] if batch.references else [batch.target[row]]),
            said=answered.said,
        )


class PredictionLog:
    """All predictions of a test, and the frames of the first few items of each task."""

    def __init__(self) -> None:
        self.rows: dict[str, Prediction] = {}
        self.frames: dict[str, list[NDArray[np.uint8]]] = {}

    def extend(self, predictions: Iterable[Prediction], batch: VideoTextBatch) -> None:
        """Add predictions, one for each row of `batch`; an item seen before is not added again."""
        for row, prediction in enumerate(predictions):
            if prediction.item_id in self.rows:
                continue
            self.rows[prediction.item_id] = prediction
            if batch.frames is not None and len(self.frames) < SAMPLE_ITEMS:
                self.frames[prediction.item_id] = _thumbnails(
                    batch.frames[row], batch.frame_mask[row]
                )

    def gather(self) -> None:
        """Bring the rows of all processes together; every process then holds all of them."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts: list[dict[str, Prediction]] = [{}] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, self.rows)
            self.rows = {key: row for part in parts for key, row in part.items()}

    def write(self, path: Path) -> None:
        """Write one JSON row an item, atomically."""
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            for row in self.rows.values():
                file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        os.replace(partial, path)


def _thumbnails(frames: torch.Tensor, mask: torch.Tensor) -> list[NDArray[np.uint8]]:
    """A few frames (H,W,3) spread over the real ones of (T,3,H,W)."""
    real = frames[mask]
    chosen = torch.linspace(0, len(real) - 1, min(SAMPLE_FRAMES, len(real))).round().long()
    return list(real[chosen.to(real.device)].permute(0, 2, 3, 1).cpu().numpy())
