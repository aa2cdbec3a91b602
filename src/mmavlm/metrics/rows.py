"""Rows of integers, one an item: what the metrics count."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def first_of_each(keys: Tensor) -> Tensor:
    """The first index of each distinct key of (n,), in the order of the sorted keys."""
    distinct, inverse = keys.unique(return_inverse=True)
    indices = torch.arange(len(keys), device=keys.device)
    first = indices.new_full(distinct.shape, len(keys))
    return first.scatter_reduce(0, inverse, indices, "amin")


def check_lengths(metric: str, **given: Any) -> None:
    """Refuse an update whose parts do not belong together.

    Raises:
        ValueError: naming each part and its length.
    """
    lengths = {name: len(part) for name, part in given.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{metric}: one entry an item is expected of each, got {lengths}")
