"""In which order a training epoch visits the items, told together with the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data.distributed import DistributedSampler

Visit = tuple[int, int]  # (pass, index)
Length = tuple[int, int]  # frames, words

# Batches of alike items are made of so many batches drawn at random.
POOLED_BATCHES = 50


@dataclass(frozen=True)
class Draw:
    """How many visits an epoch pays to the items at `indices`.

    Visits go through the items pass by pass, from epoch to epoch without a break, so all items are
    visited equally often whatever `count` is; a pass that an epoch does not finish goes on with the
    next one, in an order of its own.
    """

    indices: Sequence[int]
    count: int

    def visits(self, epoch: int, seed: int) -> Iterator[Visit]:
        """Those of an epoch, as (pass, index); no two are equal, in whatever epochs."""
        size, first, stop = len(self.indices), epoch * self.count, (epoch + 1) * self.count
        for number in range(first // size, -(-stop // size)):
            start, end = max(first - number * size, 0), min(stop - number * size, size)
            order = list(range(size))
            if (start, end) != (0, size):
                np.random.default_rng((seed, number, self.indices[0])).shuffle(order)
            yield from ((number, self.indices[at]) for at in order[start:end])

    def scaled(self, factor: float) -> Draw:
        """The same items, `factor` times as many visits, at least one."""
        return replace(self, count=max(1, round(self.count * factor)))

    def moved(self, offset: int) -> Draw:
        """The same items where their indices are higher by `offset`."""
        return replace(self, indices=[index + offset for index in self.indices])


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
        lengths: Sequence[Length] | None = None,
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
        self.lengths = lengths
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
        visits = [v for draw in self.draws for v in draw.visits(self.epoch, self.seed)]
        random = torch.Generator().manual_seed(self.seed + self.epoch)
        order = [visits[at] for at in torch.randperm(len(visits), generator=random).tolist()]
        while len(order) < self.total_size:  # ranks take equally many
            order += order[: self.total_size - len(order)]
        if self.lengths is not None:
            order = grouped(order, self.lengths, self.together, random)
        share = order[self.rank : self.total_size : self.num_replicas]
        return iter(share[self.left_out :])


def grouped(
    order: Sequence[Visit], lengths: Sequence[Length], together: int, random: torch.Generator
) -> list[Visit]:
    """The visits, `together` at a time of alike length (see `EpochOrder`)."""
    whole = len(order) - len(order) % together
    groups = []
    for start in range(0, whole, POOLED_BATCHES * together):
        pool = order[start : min(start + POOLED_BATCHES * together, whole)]
        alike = sorted(pool, key=lambda visit: lengths[visit[1]])
        groups += [alike[i : i + together] for i in range(0, len(alike), together)]
    shuffled = torch.randperm(len(groups), generator=random).tolist()
    return [visit for at in shuffled for visit in groups[at]] + list(order[whole:])


def padding_share(lengths: Sequence[int], batch_size: int) -> float:
    """How much of batches is padding if each is padded to its longest item, 0 to 1."""
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    padded = sum(len(batch) * max(batch) for batch in batches)
    return 1 - sum(lengths) / padded
