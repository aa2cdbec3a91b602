"""Devices that are asked for and not there, found before the run starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmavlm.errors import ConfigError


def check_accelerator(trainer: Mapping[str, Any]) -> None:
    """Refuse a GPU, or more of them, where there is none.

    Raises:
        ConfigError: saying what was asked for, what is there, and what to give instead.
    """
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
