"""Views to decode against that see what the model sees, and remember it otherwise.

State is a value, so the other view is another state of the same films: no frame is encoded twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import MemoryState, TemporalState
from mmavlm.model.branches import Branch
from mmavlm.model.watched import Watched


@dataclass(frozen=True)
class NoMemory:
    """The newest frame, before which the memory was emptied."""

    def remember(self, branch: Branch, watched: Watched, state: TemporalState) -> TemporalState:
        """The state after the newest frame of each film alone; one step of the frame loop.

        Raises:
            ConfigError: if the temporal aggregator keeps no memory.
        """
        _bank(branch, state, "no_memory")
        return branch.remember(watched.newest())


@dataclass(frozen=True)
class ShuffledMemory:
    """The slots of the memory in another order, which depends on their number and `seed`."""

    seed: int = 0

    def remember(self, branch: Branch, watched: Watched, state: TemporalState) -> TemporalState:
        """The state with its slots shuffled, row by row.

        Raises:
            ConfigError: if the temporal aggregator keeps no memory, or reads it in no order.
        """
        bank = _bank(branch, state, "shuffled_memory")
        if branch.temporal.frames_of(state) is None:
            raise ConfigError(
                f"contrast=shuffled_memory changes nothing: {type(branch.temporal).__name__} "
                "attends to the slots of its memory in no order; choose contrast=shuffle, which "
                "shuffles frames before they are remembered"
            )
        real = bank.counts[:, :, 0] > 0
        order = torch.arange(real.shape[1], device=real.device).repeat(len(real), 1)
        for row, filled in zip(order, real, strict=True):
            slots = row[filled]
            row[filled] = slots[_shuffled(len(slots), self.seed).to(slots.device)]
        rows = torch.arange(len(order), device=order.device)[:, None]
        bank = MemoryState(bank.tokens[rows, order], bank.counts[rows, order], bank.seen)
        # such states are dataclasses, which the Protocol does not say
        return cast(TemporalState, replace(cast(Any, state), visual_bank=bank))


def _shuffled(count: int, seed: int) -> torch.Tensor:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order.roll(1) if torch.equal(order, torch.arange(count)) else order


def _bank(branch: Branch, state: TemporalState, name: str) -> MemoryState:
    if (bank := state.visual_bank) is None:
        raise ConfigError(
            f"contrast={name} is of a memory, and {type(branch.temporal).__name__} keeps none; "
            "choose temporal=memory_qformer, or contrast=no_film, noise, shuffle or thin"
        )
    return bank
