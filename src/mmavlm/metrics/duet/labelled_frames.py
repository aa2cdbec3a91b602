"""Scores of frames beside their labels, of all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.row_metric import RowMetric
from mmavlm.metrics.rows import check_lengths, first_of_each


class LabelledFrames(RowMetric):
    """Score and label of every frame; one seen twice, as when a sampler pads, counts once."""

    scores: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(columns=2, **kwargs)
        self.add_state("scores", default=[], dist_reduce_fx="cat")

    def update(self, frames: Sequence[str], scores: Tensor, labels: Tensor) -> None:
        """Take N frames: a name of each, its score (N,) and its label (N,), 0 or 1."""
        check_lengths("LabelledFrames", frames=frames, scores=scores, labels=labels)
        names = string_keys(frames, labels.device)
        self.rows.append(torch.stack([names, labels], dim=1).to(self.device))
        self.scores.append(scores.detach().to(self.device, torch.float32))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Scores (N,), float32, and labels (N,), int64."""
        rows = self.all_rows()
        first = first_of_each(rows[:, 0])
        scores = dim_zero_cat(self.scores) if len(self.scores) else rows.new_empty(0).float()
        return scores[first], rows[first, 1]
