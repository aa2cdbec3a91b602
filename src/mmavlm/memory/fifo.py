"""First in, first out: the bank holds the latest frames (MA-LMM, table 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from mmavlm.interfaces import MemoryState
from mmavlm.memory.base import MemoryBank


class Fifo(MemoryBank):
    """Forget the oldest slot. With `length` 0 nothing is kept: every frame stands alone."""

    shortest = 0
    compares = False

    @property
    def slots(self) -> int:
        """How many slots there are at most."""
        return self.length

    def pair(self, similarity: Tensor) -> None:
        """No pair is merged: the oldest entry is forgotten."""

    def compress(self, state: MemoryState) -> MemoryState:
        """Forget until every row has at most `length` slots."""
        while state.tokens.shape[1] > self.length:
            state = _drop_one(state)
        return state


def _drop_one(state: MemoryState) -> MemoryState:
    """Drop the row's first empty slot, or its oldest one where none is empty."""
    drop = (state.counts[:, :, 0] == 0).int().argmax(dim=1)  # 0 where no slot is empty
    slot = torch.arange(state.counts.shape[1] - 1, device=state.counts.device)
    keep = slot + (slot >= drop[:, None]).long()  # (B,S-1)
    rows = torch.arange(keep.shape[0], device=keep.device)[:, None]
    return MemoryState(state.tokens[rows, keep], state.counts[rows, keep], state.seen)
