"""First in, first out: the bank holds the latest frames (MA-LMM, table 8)."""

from __future__ import annotations

from torch import Tensor

from mmavlm.core.interfaces import MemoryState
from mmavlm.model.memory.base import MemoryBank, drop_one_slot


class Fifo(MemoryBank):
    """Forget the oldest slot. With `length` 0 no past is kept: what is read is the frame alone.

    A film's video tokens are then those of its last frame. MA-LMM without memory passes the tokens
    of all frames instead, without frame positions.
    """

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
            state = drop_one_slot(state)
        return state
