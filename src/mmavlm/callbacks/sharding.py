"""Frozen weights spread over all processes, for LLMs too large for each GPU to hold whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from mmavlm.core.errors import ConfigError

ALL, NODE = "all", "node"
LISTS = (nn.ModuleList, nn.ModuleDict)  # have no forward, in which their weights could be gathered


class FrozenShardsStrategy(DDPStrategy):
    """DDP for what is trained, FSDP for what is frozen.

    Each frozen block of at least `min_numel` parameters is sharded over the processes, gathered
    for its forward and backward, and let go again. Trainable weights are whole on every process:
    they are few, may lie between frozen ones of another precision, and a checkpoint holds them
    alone. So many processes hold one copy of the frozen weights as `share` says: `all` of them,
    those of a `node`, or a number (HSDP); the copies are alike, and nothing of them crosses from
    one to the next. Other settings are those of DDPStrategy.

    Raises:
        ConfigError: naming `trainer.strategy.share`, if it is neither of these words nor a number
            that divides the processes.
    """

    def __init__(self, *, min_numel: float = 1e7, share: str | int = ALL, **settings: Any) -> None:
        super().__init__(**settings)
        self.min_numel = min_numel
        if share not in (ALL, NODE) and not (type(share) is int and share >= 1):
            raise ConfigError(
                f"trainer.strategy.share={share!r} says how many processes hold one copy of the "
                f"frozen weights: {ALL}, {NODE}, or a number from 1"
            )
        self.share = share

    def model_to_device(self) -> None:
        """Shard block by block, then move the rest, so that no device ever holds the whole."""
        assert self.model is not None
        mesh = self.mesh()
        for block in list(frozen_blocks(self.model, self.min_numel)):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        sharded = [n for n, p in self.model.named_parameters() if isinstance(p, DTensor)]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.model, sharded)
        super().model_to_device()

    def mesh(self) -> DeviceMesh:
        """The processes as copies × shards, neighbours sharing a copy; shards alone if it is one.

        All processes make it together.

        Raises:
            ConfigError: naming both numbers, if the processes cannot be divided so.
        """
        known = {ALL: self.world_size, NODE: self.num_processes}
        shards = self.share if isinstance(self.share, int) else known[self.share]
        copies, rest = divmod(self.world_size, shards)
        if rest:
            raise ConfigError(
                f"trainer.strategy.share={self.share} has {shards} processes hold a copy of the "
                f"frozen weights, which does not divide the {self.world_size} there are; choose a "
                "number that does"
            )
        kind = self.root_device.type
        if copies == 1:
            return init_device_mesh(kind, (shards,))
        return init_device_mesh(kind, (copies, shards), mesh_dim_names=("copies", "shards"))


def frozen_blocks(module: nn.Module, min_numel: float) -> Iterator[nn.Module]:
    """The smallest modules that hold `min_numel` frozen parameters of no smaller such module.

    Modules with anything trainable or quantised in them, or sharded already, are not given.
    """
    taken: set[nn.Parameter] = set()
    # children come after their parents, and so before them in reverse
    for part in reversed(list(module.modules())):
        parameters = set(part.parameters())
        if isinstance(part, LISTS) or not all(map(_can_be_sharded, parameters)):
            continue
        rest = parameters - taken
        if sum(p.numel() for p in rest) >= min_numel:
            taken |= rest
            yield part


def _can_be_sharded(parameter: nn.Parameter) -> bool:
    frozen = not parameter.requires_grad and parameter.is_floating_point()
    return frozen and not isinstance(parameter, DTensor)
