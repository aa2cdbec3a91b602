"""What is kept beside the slots of a bank and merged as they are, such as keys and values.

Merging commutes with anything affine, since the weights of a merge add up to 1.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from typing_extensions import Self

from mmavlm.model.memory.slots import Move, merge_slots


class Carried:
    """X values of h heads, each of width d, beside each of C slots at N positions in R rows.

    It follows the moves of a bank (`slots.SlotBank`), each by `merge`, then `put`. In memory heads
    come first, (X,R,h,C,N,d), so that what a head attends to lies together.
    """

    def __init__(self, values: Tensor) -> None:
        """What `values` (X,R,h,C,N,d) hold; they are written over."""
        self.values = values

    def clone(self) -> Self:
        """The same in memory of its own."""
        return type(self)(self.values.clone())

    def part(self, rows: slice = slice(None), things: slice = slice(None)) -> Self:
        """Some of the rows, or of the things carried, in the same memory."""
        return type(self)(self.values[things, rows])

    def merge(self, move: Move) -> None:
        """Merge what the bank merges, one thing at a time, which bounds the memory it takes."""
        room = self.values.shape[3]
        if move.room > room:
            self.values = torch.cat([self.values, self.values[:, :, :, : move.room - room]], dim=3)
        if move.merge is not None:
            for buffer in self._by_slot():
                merge_slots(buffer, move.merge)

    def put(self, move: Move, values: Iterable[Tensor]) -> Tensor:
        """Put values X times (R,h,N,d) beside the entry; all that is there, (X,R,h,used·N,d).

        Slots past the number of entries of a row hold nothing of use.
        """
        at = move.free_at
        for buffer, value in zip(self._by_slot(), values, strict=True):
            value = value.transpose(1, 2)
            if move.filled is not None:
                value = torch.where(move.active[:, None, None, None], value, buffer[at])
            buffer[at] = value.to(buffer.dtype)
        return self.values[:, :, :, : move.used].flatten(3, 4)

    def _by_slot(self) -> Tensor:
        """The same memory as (X,R,C,N,h,d)."""
        return self.values.permute(0, 1, 3, 4, 2, 5)
