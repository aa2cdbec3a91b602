"""GradCache: the features of a large batch with the activations of few of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmavlm.model.alignment.levels import LevelFeatures

Features = dict[str, LevelFeatures]


def features_in_chunks(
    features_of: Callable[..., Features], *inputs: Tensor | Sequence[Any], chunk: int
) -> Features:
    """What `features_of` gives for the B rows of `inputs`, computed `chunk` rows at a time.

    An input may be (), which holds nothing of any row.

    Activations are dropped once a chunk has its features. When the gradient of a loss over all rows
    has come back to these, each chunk is computed again, with the random numbers it drew before,
    and lets its gradient through before the next one (GradCache, arXiv 2101.06983, section 3).
    """
    parts: list[Features] = []
    for start in range(0, len(inputs[0]), chunk):
        rows = (part[start : start + chunk] for part in inputs)
        parts.append(checkpoint(features_of, *rows, use_reentrant=False))
    return {
        level: LevelFeatures(*map(torch.cat, zip(*(part[level] for part in parts), strict=True)))
        for level in parts[0]
    }
