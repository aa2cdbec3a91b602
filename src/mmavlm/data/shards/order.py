"""The order of an epoch over shards: each is opened once, by one node, and films are mixed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmavlm.core.ranks import Ranks
from mmavlm.data.films import Nearby
from mmavlm.data.order import GIVEN_AT_ONCE, EpochOrder, Visits, grouped
from mmavlm.data.shards.ahead import Ahead

TOLD_EVERY = 16  # visits
OF_A_NODE = ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE")  # processes: torchrun's, SLURM's


class ShardOrder(EpochOrder):
    """What `order` visits, from seed and epoch alone, with few shards open at a time.

    Shards come in a shuffled order. Each of `nodes` takes a stretch of it, so that it fetches its
    own shards, and at most one more where stretches meet; its ranks take turns. At any place of a
    stretch the visits are of at most as many shards as are mixed: each shard is spread over the
    places of so many. Several sets are spread over all of the epoch, each with its own shards, and
    items of no shard likewise. Ranks pay equally many visits: where these do not add up, a node
    pays its first ones twice. Batches of alike items (`lengths`, see `EpochOrder`) are made within
    a node. Some shards are fetched ahead by `bring`, which is given the index of an item.
    """

    def __init__(
        self,
        order: EpochOrder,
        nearby: Nearby,
        nodes: int = 1,
        bring: Callable[[int], None] | None = None,
    ) -> None:
        self.__dict__.update(vars(order))
        self.nearby = nearby
        self.bring = bring
        self.nodes = nodes
        self.ranks_of_node = self.num_replicas // nodes

    def __iter__(self) -> Iterator[Any]:
        node, rank = divmod(self.rank, self.ranks_of_node)
        share = self.of_node(node)[rank :: self.ranks_of_node]
        share = share[self.left_out :].copy()
        ahead = self._ahead(share[:, 1].copy())
        try:
            for start in range(0, len(share), GIVEN_AT_ONCE):
                some = share[start : start + GIVEN_AT_ONCE].tolist()
                for place, visit in enumerate(some, start):
                    if place % TOLD_EVERY == 0:
                        ahead.reach(place)
                    yield tuple(visit)
        finally:
            ahead.stop()

    def _ahead(self, indices: NDArray[np.int32]) -> Ahead:
        """What has the shards of these items fetched before they are visited."""
        bring = self.bring
        many = 0 if bring is None else self.nearby.ahead
        return Ahead(
            self.nearby.shard[indices], many, lambda visit: bring and bring(int(indices[visit]))
        )

    def of_node(self, node: int) -> Visits:
        """All visits of a node in this epoch, in order, those of its ranks in turn."""
        random = np.random.default_rng((self.seed, self.epoch))
        visits = np.concatenate([draw.visits(self.epoch, self.seed) for draw in self.draws])
        shard = self.nearby.shard[visits[:, 1]]
        # from 0 to 1: where a visit lies among the shards of its set, as they are shuffled
        groups = [(count, many) for count, many in self.nearby.groups if count]
        places = [random.permutation(count) / count for count, _ in groups]
        widths = [np.full(count, 1 / count) for count, _ in groups]
        mixed = [np.full(count, many / count) for count, many in groups]
        # the last is of what lies in no shard (-1): anywhere, as it is drawn
        at, width, spread = (np.concatenate([*of, [0.0]]) for of in (places, widths, mixed))
        width[-1] = 1
        drawn = at[shard] + width[shard] * random.random(len(visits))
        order = np.argsort(drawn, kind="stable")
        start, stop = (len(order) * n // self.nodes for n in (node, node + 1))
        mine = order[start:stop] if stop > start else order
        base = np.where(shard < 0, drawn, at[shard])[mine]
        last = base + spread[shard[mine]] * random.random(len(visits))[mine]
        taken = visits[mine[np.argsort(last, kind="stable")]]
        taken = np.resize(taken, (self.total_size // self.nodes, 2))
        if self.lengths is None:
            return taken
        torch_random = torch.Generator().manual_seed(self.seed + self.epoch)
        return grouped(taken, self.lengths, self.together // self.nodes, torch_random)


def nodes_of(ranks: int, trainers: int = 1) -> int:
    """How many nodes `ranks` processes run on, as their launcher says, else as the trainer does.

    All ranks must ask, and get the same.
    """
    told = next((os.environ[name] for name in OF_A_NODE if name in os.environ), "")
    each = int(told) if told.isdecimal() else ranks // trainers
    nodes = ranks // each if each and ranks % each == 0 else 1
    agreed = Ranks()  # nodes of several sizes would say different things
    return nodes if agreed.highest(nodes) == -agreed.highest(-nodes) else 1
