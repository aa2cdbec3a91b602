"""Before the first step: what is trained, what is frozen, and whether it fits in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import lightning as L
import psutil
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.distributed.tensor import DTensor

from mmavlm.model.branches import Branch

GIB = 2**30
ADAM_STATES = 2  # first and second moment, in the parameter's precision


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes a training step holds on one device; `activations` is None where nobody knows them."""

    weights: int
    gradients: int
    optimizer: int
    activations: int | None = None

    @property
    def total(self) -> int:
        """All that is known."""
        return self.weights + self.gradients + self.optimizer + (self.activations or 0)

    def __str__(self) -> str:
        parts = (
            f"weights {shown_bytes(self.weights)}, gradients {shown_bytes(self.gradients)}, "
            f"optimizer {shown_bytes(self.optimizer)}"
        )
        if self.activations is None:
            return f"{parts}: {shown_bytes(self.total)}, and the activations on top"
        return f"{parts}, activations {shown_bytes(self.activations)}: {shown_bytes(self.total)}"


def estimate_memory(
    module: nn.Module,
    batch_size: int = 1,
    num_frames: int = 1,
    chunk: int | None = None,
    clips: int | None = None,
) -> MemoryEstimate:
    """What weights, gradients and AdamW's states of a module take in a training step.

    Activations are counted if the module can tell them: `activation_bytes(batch_size, num_frames)`,
    of `chunk` rows at a time where a gradient cache holds no more, and of `clips` of each sound.
    """
    activation_bytes = getattr(module, "activation_bytes", None)
    given = {"chunk": chunk, "clips": clips}
    settings = {name: number for name, number in given.items() if number is not None}
    parameters = list(module.parameters())
    trainable = sum(p.nbytes for p in parameters if p.requires_grad)
    return MemoryEstimate(
        weights=sum(tensor.nbytes for tensor in _tensors(module)),
        gradients=trainable,
        optimizer=ADAM_STATES * trainable,
        activations=activation_bytes(batch_size, num_frames, **settings)
        if activation_bytes
        else None,
    )


class ModelOverview(L.Callback):
    """Print trainable and frozen parameters by part and the memory estimate, before training."""

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the table, and a warning where the estimate exceeds what is free."""
        backbone = getattr(pl_module, "backbone", pl_module)
        table = Table("part", "trainable", "frozen", "memory", title="Model", title_justify="left")
        for name, part in _parts(backbone):
            parameters = list(part.parameters())
            trainable = sum(p.numel() for p in parameters if p.requires_grad)
            size = sum(p.nbytes for p in parameters)
            frozen = sum(p.numel() for p in parameters) - trainable
            table.add_row(name, _count(trainable), _count(frozen), shown_bytes(size))
        device = trainer.strategy.root_device
        estimate, free = step_estimate(trainer, pl_module)
        console = Console()
        console.print(table)
        console.print(f"memory estimate: {estimate}; {shown_bytes(free)} free")
        if (lengths := getattr(pl_module, "lengths", None)) is not None:
            console.print(f"language model: {lengths}")
        if estimate.total - resident_bytes(backbone, device) > free:
            console.print(
                "this may not fit: lower data.batch_size, freeze or quantise more, or use "
                "trainer=fsdp on several GPUs",
                style="bold yellow",
            )


def _parts(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a model by name, those of its branches one by one."""
    for name, part in backbone.named_children():
        yield from part.named_children() if isinstance(part, Branch) else [(name, part)]


def step_estimate(trainer: L.Trainer, module: L.LightningModule) -> tuple[MemoryEstimate, int]:
    """What a training step of a stage takes with the batches of a trainer, and bytes free."""
    backbone = getattr(module, "backbone", module)
    chunk = getattr(module, "grad_cache_chunk", None)
    rows, frames, clips = _batch_shape(trainer)
    estimate = estimate_memory(backbone, rows, frames, chunk, clips)
    return estimate, free_memory(trainer.strategy.root_device)


def free_memory(device: torch.device) -> int:
    """Free bytes on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def resident_bytes(module: nn.Module, device: torch.device) -> int:
    """Bytes of a module's weights that lie on a device already."""
    return sum(tensor.nbytes for tensor in _tensors(module) if tensor.device == device)


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    """What this process holds of a module's weights and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]


def _batch_shape(trainer: L.Trainer) -> tuple[int, int, int | None]:
    """Rows, frames of a film, and clips of a sound, None where sounds are not read."""
    data = getattr(trainer, "datamodule", None)
    settings = getattr(data, "settings", {})
    clips = settings.get("clips")
    frames = settings.get("num_frames", 1)
    return getattr(data, "batch_size", 1), frames, None if clips is None else clips.clips


def _count(number: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def shown_bytes(number: int) -> str:
    """Bytes as a person reads them."""
    return f"{number / GIB:.2f} GiB" if number >= GIB / 10 else f"{number / 2**20:.1f} MiB"
