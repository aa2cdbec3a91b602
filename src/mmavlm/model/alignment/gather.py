"""Rows of all ranks in one batch, with gradient: every process sees every negative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class RankRows:
    """How many batch rows each rank holds, and which rank this is.

    `columns` is the most that any rank has beside a row, such as false texts.

    Every rank computes the loss of the whole gathered batch, and the backward pass of `gather`
    sums what the ranks want of a row. DDP's mean over ranks then gives the gradient of one process
    with the whole batch, exactly, whether the ranks hold equally many rows or not.
    """

    counts: tuple[int, ...]
    rank: int
    columns: int = 0

    @classmethod
    def alone(cls, rows: int, columns: int = 0) -> RankRows:
        """One process, or each process for itself."""
        return cls((rows,), 0, columns)

    @classmethod
    def exchange(cls, rows: int, device: torch.device, columns: int = 0) -> RankRows:
        """Tell all ranks of the default process group how many rows and columns this one holds.

        With more than one rank the sizes are read by the host: one synchronisation a step.
        """
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return cls.alone(rows, columns)
        own = torch.tensor([rows, columns], device=device)
        counts, widths = torch.stack(_all_gather(own), dim=1).tolist()
        return cls(tuple(counts), dist.get_rank(), max(widths))

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (n,…) of each rank → rows of all ranks (Σn,…), in rank order."""
        return rows if len(self.counts) == 1 else _Gather.apply(rows, self.counts, self.rank)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: tuple[int, ...], rank: int) -> Tensor:
        ctx.counts, ctx.rank = counts, rank
        missing = max(counts) - len(rows)
        padded = F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, missing))
        parts = _all_gather(padded.contiguous())
        return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total.split(ctx.counts)[ctx.rank], None, None


def _all_gather(tensor: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor)
    return parts
