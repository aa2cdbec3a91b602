"""In which order a training epoch visits the items, told together with the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.utils.data.distributed import DistributedSampler


class EpochOrder(DistributedSampler[Any]):
    """A shuffle that depends on seed and epoch alone, each rank taking its share.

    It yields (epoch, index), so that a dataset can draw an item's frames and crop from them: a
    resumed run sees what an uninterrupted one would, whatever workers did before.
    """

    def __init__(self, dataset: Sized, seed: int) -> None:
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        super().__init__(
            dataset,  # type: ignore[arg-type]
            num_replicas=torch.distributed.get_world_size() if running else 1,
            rank=torch.distributed.get_rank() if running else 0,
            seed=seed,
        )

    def __iter__(self) -> Iterator[Any]:
        epoch = self.epoch
        return ((epoch, index) for index in super().__iter__())
