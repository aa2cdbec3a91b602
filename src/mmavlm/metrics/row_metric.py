"""Metrics that keep one row of integers an item, so that strings travel between processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


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
