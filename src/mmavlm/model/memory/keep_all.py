"""No compression: the bank grows with the film."""

from __future__ import annotations

from torch import Tensor

from mmavlm.core.interfaces import MemoryState
from mmavlm.model.memory.base import MemoryBank


class KeepAll(MemoryBank):
    """Hold every frame; exact, and as large as the film is long."""

    slots = None
    compares = False

    def __init__(self, length: int = 1) -> None:
        """The bank is unbounded; `length` is taken so that strategies can be swapped in a sweep."""
        super().__init__(length)

    def pair(self, similarity: Tensor) -> None:
        """Never asked, since there is always room."""

    def compress(self, state: MemoryState) -> MemoryState:
        """The state as it is."""
        return state
