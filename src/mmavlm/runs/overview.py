"""Before the first step: what is trained, what is frozen, and whether it fits in memory."""

from __future__ import annotations

from dataclasses import dataclass

import lightning as L
import psutil
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import nn

GIB = 2**30
ADAM_STATES = 2  # first and second moment, in the parameter's precision


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes a training step holds on the device, activations of the frozen parts left out."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(module: nn.Module, activations: int = 0) -> MemoryEstimate:
    """What weights, gradients and AdamW's states of a module take, beside `activations` bytes."""
    parameters = list(module.parameters())
    trainable = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    tensors = [*parameters, *module.buffers()]
    return MemoryEstimate(
        weights=sum(t.numel() * t.element_size() for t in tensors),
        gradients=trainable,
        optimizer=ADAM_STATES * trainable,
        activations=activations,
    )


class ModelOverview(L.Callback):
    """Print trainable and frozen parameters by part and the memory estimate, before training."""

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the table, and a warning where the estimate exceeds what is free."""
        backbone = getattr(pl_module, "backbone", pl_module)
        table = Table("part", "trainable", "frozen", "memory", title="Model", title_justify="left")
        for name, part in backbone.named_children():
            parameters = list(part.parameters())
            trainable = sum(p.numel() for p in parameters if p.requires_grad)
            size = sum(p.numel() * p.element_size() for p in parameters)
            frozen = sum(p.numel() for p in parameters) - trainable
            table.add_row(name, _count(trainable), _count(frozen), _bytes(size))
        activations = getattr(backbone, "activation_bytes", lambda *_: 0)
        batch_size, num_frames = _batch_shape(trainer)
        estimate = estimate_memory(pl_module, activations(batch_size, num_frames))
        console = Console()
        console.print(table)
        free = free_memory(pl_module.device)
        console.print(
            f"memory estimate: weights {_bytes(estimate.weights)}, gradients "
            f"{_bytes(estimate.gradients)}, optimizer {_bytes(estimate.optimizer)}, activations "
            f"{_bytes(estimate.activations)}: {_bytes(estimate.total)} of {_bytes(free)} free"
        )
        if estimate.total > free:
            console.print(
                "this may not fit: lower data.batch_size, freeze or quantise more, or use "
                "trainer=fsdp on several GPUs",
                style="bold yellow",
            )


def free_memory(device: torch.device) -> int:
    """Free bytes on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _batch_shape(trainer: L.Trainer) -> tuple[int, int]:
    data = getattr(trainer, "datamodule", None)
    return getattr(data, "batch_size", 1), getattr(data, "settings", {}).get("num_frames", 1)


def _count(number: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def _bytes(number: int) -> str:
    return f"{number / GIB:.2f} GiB" if number >= GIB / 10 else f"{number / 2**20:.1f} MiB"
