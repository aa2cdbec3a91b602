"""Frozen weights spread over all processes, for LLMs too large for each GPU to hold whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

LISTS = (nn.ModuleList, nn.ModuleDict)  # have no forward, in which their weights could be gathered


class FrozenShardsStrategy(DDPStrategy):
    """DDP for what is trained, FSDP for what is frozen.

    Each frozen block of at least `min_numel` parameters is sharded over the processes, gathered
    for its forward and backward, and let go again. Trainable weights are whole on every process:
    they are few, may lie between frozen ones of another precision, and a checkpoint holds them
    alone. Settings are those of DDPStrategy.
    """

    def __init__(self, *, min_numel: float = 1e7, **settings: Any) -> None:
        super().__init__(**settings)
        self.min_numel = min_numel

    def model_to_device(self) -> None:
        """Shard block by block, then move the rest, so that no device ever holds the whole."""
        assert self.model is not None
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for block in list(frozen_blocks(self.model, self.min_numel)):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        sharded = [n for n, p in self.model.named_parameters() if isinstance(p, DTensor)]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.model, sharded)
        super().model_to_device()


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
