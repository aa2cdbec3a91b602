"""In which order a training epoch visits the items, told together with the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.utils.data.distributed import DistributedSampler

from mmavlm.data.items import Indices

Visits = NDArray[np.int32]  # (N,2): pass, index
Lengths = NDArray[np.int32]  # (N,2): frames, words

# Batches of alike items are made of so many batches drawn at random.
POOLED_BATCHES = 50
GIVEN_AT_ONCE = 4096  # visits that are Python's numbers at a time


@dataclass(frozen=True)
class Draw:
    """How many visits an epoch pays to the items at `indices`.

    Visits go through the items pass by pass, from epoch to epoch without a break, so all items are
    visited equally often whatever `count` is; a pass that an epoch does not finish goes on with the
    next one, in an order of its own.
    """

    indices: Indices | Sequence[int]
    count: int

    def visits(self, epoch: int, seed: int) -> Visits:
        """Those of an epoch (count,2), as pass and index; no two are equal, in whatever epochs."""
        size, first, stop = len(self.indices), epoch * self.count, (epoch + 1) * self.count
        indices, passes = np.asarray(self.indices, np.int32), []
        for number in range(first // size, -(-stop // size)):
            start, end = max(first - number * size, 0), min(stop - number * size, size)
            order = np.arange(size, dtype=np.int32)
            if (start, end) != (0, size):
                np.random.default_rng((seed, number, int(indices[0]))).shuffle(order)
            taken = indices[order[start:end]]
            passes.append(np.stack([np.full_like(taken, number), taken], axis=1))
        return np.concatenate(passes)

    def scaled(self, factor: float) -> Draw:
        """The same items, `factor` times as many visits, at least one."""
        return replace(self, count=max(1, round(self.count * factor)))

    def moved(self, offset: int) -> Draw:
        """The same items where their indices are higher by `offset`."""
        return replace(self, indices=np.asarray(self.indices, np.int32) + offset)


class EpochOrder(DistributedSampler[Any]):
    """A shuffle of what `draws` visit that depends on seed and epoch alone, each rank its share.

    It yields (pass, index), so that a dataset can draw an item's frames and crop from them: a
    resumed run sees what an uninterrupted one would, whatever workers did before.

    With `lengths`, those of the items, batches of `batch_size` hold items of alike length, on all
    ranks at once: of `POOLED_BATCHES` batches drawn at random the items are sorted, cut into
    batches, and these shuffled. What does not fill a batch comes last, as it was drawn.
    """

    def __init__(
        self,
        draws: Sequence[Draw],
        seed: int,
        *,
        lengths: ArrayLike | None = None,
        batch_size: int = 1,
    ) -> None:
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        super().__init__(
            range(sum(draw.count for draw in draws)),  # type: ignore[arg-type]
            num_replicas=torch.distributed.get_world_size() if running else 1,
            rank=torch.distributed.get_rank() if running else 0,
            seed=seed,
        )
        self.draws = draws
        self.lengths = None if lengths is None else np.asarray(lengths, np.int32)
        self.together = batch_size * self.num_replicas
        self._begin = (0, 0)

    def begin_at(self, epoch: int, visits: int) -> None:
        """Leave out the first `visits` of this rank's share of an epoch, which were paid before."""
        self._begin = (epoch, visits)

    @property
    def left_out(self) -> int:
        """How many visits of the epoch that is set are left out."""
        epoch, visits = self._begin
        return visits if self.epoch == epoch else 0

    def __iter__(self) -> Iterator[Any]:
        visits = np.concatenate([draw.visits(self.epoch, self.seed) for draw in self.draws])
        random = torch.Generator().manual_seed(self.seed + self.epoch)
        order = visits[torch.randperm(len(visits), generator=random).numpy()]
        order = np.resize(order, (self.total_size, 2))  # ranks take equally many
        if self.lengths is not None:
            order = grouped(order, self.lengths, self.together, random)
        share = order[self.rank : self.total_size : self.num_replicas][self.left_out :].copy()
        del visits, order
        for start in range(0, len(share), GIVEN_AT_ONCE):
            yield from map(tuple, share[start : start + GIVEN_AT_ONCE].tolist())


def grouped(order: Visits, lengths: Lengths, together: int, random: torch.Generator) -> Visits:
    """The visits, `together` at a time of alike length (see `EpochOrder`)."""
    whole = len(order) - len(order) % together
    alike = order.copy()
    for start in range(0, whole, POOLED_BATCHES * together):
        pool = order[start : min(start + POOLED_BATCHES * together, whole)]
        frames, words = lengths[pool[:, 1]].T
        alike[start : start + len(pool)] = pool[np.lexsort((words, frames))]
    shuffled = torch.randperm(whole // together, generator=random).numpy()
    groups = alike[:whole].reshape(-1, together, 2)[shuffled]
    return np.concatenate([groups.reshape(-1, 2), order[whole:]])


def padding_share(lengths: Sequence[int], batch_size: int) -> float:
    """How much of batches is padding if each is padded to its longest item, 0 to 1."""
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    padded = sum(len(batch) * max(batch) for batch in batches)
    return 1 - sum(lengths) / padded
