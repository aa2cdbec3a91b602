"""In which order a training epoch visits the items, told together with the epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data.distributed import DistributedSampler


class EpochOrder(DistributedSampler[Any]):
    """A shuffle of `visits` that depends on seed and epoch alone, each rank taking its share.

    `visits` are indices of items; one that an epoch shows several times stands there so often. It
    yields (pass, index), so that a dataset can draw an item's frames and crop from them: a resumed
    run sees what an uninterrupted one would, whatever workers did before. Each visit of an item is
    a pass of its own, so no two draw the same.
    """

    def __init__(self, visits: Sequence[int], seed: int) -> None:
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        super().__init__(
            visits,  # type: ignore[arg-type]
            num_replicas=torch.distributed.get_world_size() if running else 1,
            rank=torch.distributed.get_rank() if running else 0,
            seed=seed,
        )
        before: Counter[int] = Counter()
        self.visits: list[tuple[int, int]] = []
        for index in visits:
            self.visits.append((before[index], index))
            before[index] += 1
        self.most = max(before.values(), default=1)

    def __iter__(self) -> Iterator[Any]:
        epoch = self.epoch
        for at in super().__iter__():
            earlier, index = self.visits[at]
            yield epoch * self.most + earlier, index
