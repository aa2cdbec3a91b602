"""What is kept beside the slots of a bank and merged as they are, such as keys and values.

Merging commutes with anything affine, since the weights of a merge add up to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from typing_extensions import Self

from mmavlm.model.memory.slots import Move, merge_slots, put_entry


class Carried:
    """X values of h heads, each of width d, beside each of C slots at N positions in R rows.

    It follows the moves of a bank (`slots.SlotBank`), each by `merge`, then `put`. In memory all
    that lies beside an entry lies together, (R,C,N,X,h,d), so that it is moved as a whole.
    """

    def __init__(self, values: Tensor) -> None:
        """What `values` (R,C,N,X,h,d) hold; they are written over."""
        self.values = values

    def clone(self) -> Self:
        """The same in memory of its own."""
        return type(self)(self.values.clone())

    @classmethod
    def joined(cls, stretches: Sequence[Carried]) -> Self:
        """What is carried at several stretches of positions, in memory of its own."""
        return cls(torch.cat([carried.values for carried in stretches], dim=2))

    def part(self, rows: slice) -> Self:
        """Some of the rows, in the same memory."""
        return type(self)(self.values[rows])

    def merge(self, move: Move) -> None:
        """Merge what the bank merges."""
        room = self.values.shape[1]
        if move.room > room:
            self.values = torch.cat([self.values, self.values[:, : move.room - room]], dim=1)
        if move.merge is not None:
            merge_slots(self.values.flatten(3), move.merge)

    def put(self, move: Move, values: Iterable[Tensor]) -> Tensor:
        """Put values X times (R,h,N,d) beside the entry; all that is there, (X,R,h,used·N,d).

        Slots past the number of entries of a row hold nothing of use.
        """
        for beside, value in zip(self.values.unbind(3), values, strict=True):
            put_entry(beside, move, value.transpose(1, 2))
        return self.values[:, : move.used].flatten(1, 2).permute(2, 0, 3, 1, 4)
