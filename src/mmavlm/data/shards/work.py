"""Packing a split by several processes, which share it with those of other machines."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from mmavlm.core.errors import ConfigError
from mmavlm.data.shards.packing import MB, Packing, Plan, counted, planned
from mmavlm.data.shards.places import Options, Place, shards_of
from mmavlm.data.shards.splits import USUAL
from mmavlm.data.shards.writing import Job, Outcome, write_shard

if TYPE_CHECKING:
    from mmavlm.data.datamodule import VideoDataModule


@dataclass(frozen=True)
class Packer:
    """Packs the splits of a set as shards below `out`, a folder or an address."""

    out: str
    packing: Packing
    processes: int = 1
    options: Options = field(default_factory=dict)
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def pack(self, data: VideoDataModule, split: str) -> str:
        """Write the shards of a split that are not there yet; what there is then, in a line.

        Raises:
            ConfigError: if other shards lie there, or the set lies in shards itself.
            DataError: if more films are broken than `data.max_broken` allows.
            LostShardError: if a shard cannot be written.
        """
        if not data.films.at_hand:
            raise ConfigError("this set lies in shards already; pack the set they were made of")
        plans = list(planned(data.items(split), split, self.packing))
        self._refuse_others(split, plans)
        classes = data.classes
        jobs = [Job(plan, self._place(plan.name), classes) for plan in plans]
        random.SystemRandom().shuffle(jobs)  # a seed would send all machines the same way
        outcomes = []
        for outcome in track(self._done(jobs), f"packing {split}", len(jobs), console=self.console):
            data.broken.add(f"{film}: {why}" for film, why in outcome.broken.items())
            outcomes.append(outcome)
        return _told(split, plans, outcomes)

    def _done(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """What becomes of the shards, as they are done."""
        if self.processes == 1:
            yield from map(write_shard, jobs)
            return
        # spawned, as forked processes may inherit locks that a thread of PyTorch holds
        pool = ProcessPoolExecutor(min(self.processes, len(jobs)), get_context("spawn"))
        try:
            for future in as_completed([pool.submit(write_shard, job) for job in jobs]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _place(self, name: str) -> Place:
        return Place(self.out, self.options).below(name)

    def _refuse_others(self, split: str, plans: Sequence[Plan]) -> None:
        """Refuse a place with shards that who reads the split would take for its own."""
        names = {plan.name for plan in plans}
        try:
            there = shards_of(self.out, USUAL % split, self.options)
        except FileNotFoundError:
            there = []
        others = sorted(place.name for place, _ in there if place.name not in names)
        if others:
            raise ConfigError(
                f"out={Place(self.out)} holds {len(others)} shards of the {split} split that this "
                f"set does not have, such as {others[0]}; give another out, or remove them"
            )


def _told(split: str, plans: Sequence[Plan], outcomes: Sequence[Outcome]) -> str:
    written = [outcome for outcome in outcomes if outcome.size]
    counts = counted(plans)
    size_mb = sum(outcome.size for outcome in written) / MB
    return (
        f"{split}: {len(plans)} shards of {counts['items']} items and {counts['films']} films; "
        f"{len(written)} written, {size_mb:.1f} MB"
    )
