"""What a trainer cannot be: counts of nothing, devices that are not there; told before the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmavlm.core.errors import ConfigError
from mmavlm.core.settings import at_least, whole_at_least

# The settings of the trainer that count something, and the least they may be.
COUNTS = {
    "max_epochs": -1, "max_steps": -1, "num_nodes": 1, "accumulate_grad_batches": 1,
    "log_every_n_steps": 0, "check_val_every_n_epoch": 1, "num_sanity_val_steps": -1,
}  # fmt: skip


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuse numbers that count nothing, and GPUs, or more of them, where there are none.

    Raises:
        ConfigError: saying what was asked for, what is there, and what to give instead.
    """
    for name, least in COUNTS.items():
        whole_at_least("trainer", least, **{name: trainer.get(name)})
    at_least("trainer", 0, gradient_clip_val=trainer.get("gradient_clip_val"))
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    if accelerator not in ("gpu", "cuda"):
        return
    there, asked = torch.cuda.device_count(), _least(devices)
    if there < asked:
        raise ConfigError(
            f"trainer.accelerator={accelerator} with trainer.devices={devices} was asked for, but "
            f"torch {torch.__version__} sees {there} GPUs; use trainer=cpu, fewer devices, or a "
            "torch built for this machine's driver"
        )


def _least(devices: Any) -> int:
    """How many GPUs must be there for Lightning's `devices`: a count, -1, auto, or indices."""
    if isinstance(devices, str):
        if "," in devices:
            return _least([int(index) for index in devices.split(",") if index.strip()])
        return _least(int(devices)) if devices.lstrip("-").isdigit() else 1
    if isinstance(devices, int):
        return max(devices, 1)
    if isinstance(devices, Sequence):
        return max(devices, default=0) + 1
    return 1
