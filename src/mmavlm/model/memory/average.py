"""Average pooling over time (MA-LMM, table 8): one slot holds the mean of all past frames."""

from __future__ import annotations

import torch
from torch import Tensor

from mmavlm.core.interfaces import MemoryState
from mmavlm.model.memory.base import MemoryBank, at_least_single


class Average(MemoryBank):
    """Keep a running mean of the past, each frame with equal weight, in a single slot."""

    slots = 1
    compares = False

    def __init__(self, length: int = 1) -> None:
        """The bank has one slot; `length` is taken so that strategies can be swapped in a sweep."""
        super().__init__(length)

    def pair(self, similarity: Tensor) -> Tensor:
        """The only pair there is, whatever the similarities (B,1,N)."""
        return similarity.new_zeros(similarity[:, 0].shape, dtype=torch.long)

    def compress(self, state: MemoryState) -> MemoryState:
        """Fold all slots into the mean of the frames they hold: (B,S,N,D) → (B,1,N,D)."""
        if state.tokens.shape[1] <= 1:
            return state
        total = state.counts.sum(dim=1, keepdim=True)
        weights = (state.counts / total.clamp(min=1)).unsqueeze(-1)
        mean = (at_least_single(state.tokens) * weights).sum(dim=1, keepdim=True)
        return MemoryState(mean.to(state.tokens.dtype), total, state.seen)
