"""Metrics that keep one row of integers an item, so that strings travel between processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


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


class RowMetric(Metric):
    """A metric over rows (n, columns) of int64, gathered from all processes before `compute`."""

    full_state_update = False
    higher_is_better = True
    rows: list[Tensor]

    def __init__(self, columns: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns = columns
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def all_rows(self) -> Tensor:
        """The rows so far; those of all processes within `compute`."""
        return dim_zero_cat(self.rows) if len(self.rows) else self._no_rows()

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all processes; one that saw no item joins with none of the same kind.

        torchmetrics would have it send floats, which the others could not put behind their rows.
        """
        if isinstance(self.rows, list) and not self.rows:
            self.rows.append(self._no_rows())
        super().sync(*args, **kwargs)

    def _no_rows(self) -> Tensor:
        return torch.empty(0, self.columns, dtype=torch.int64, device=self.device)
