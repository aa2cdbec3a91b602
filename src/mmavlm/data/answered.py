"""A split without the items that a test which was killed has answered."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset


class Answered:
    """In place of an item that is not asked again; a batch has no row for it."""


class WithoutAnswered(Dataset[Any]):
    """A dataset in which `Answered` stands for the items at which `left_out` (n,) is True.

    So batches keep their numbers and their items, and no film is read for nothing.
    """

    def __init__(self, dataset: Any, left_out: NDArray[np.bool_]) -> None:
        self.dataset = dataset
        self.left_out = left_out

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return Answered() if self.left_out[index] else self.dataset[index]

    def source(self, index: int) -> str:
        """The files or folders that an item is read from."""
        return str(self.dataset.source(index))
