"""Mistakes that would cost minutes, found before the run starts."""

from __future__ import annotations

import importlib.util
import netrc
import os
from collections.abc import Mapping
from typing import Any

import torch

from mmavlm.errors import ConfigError

_PACKAGES = {"WandbLogger": "wandb", "TensorBoardLogger": "tensorboard"}


def check_accelerator(trainer: Mapping[str, Any]) -> None:
    """Refuse a GPU, or more of them, where there is none.

    Raises:
        ConfigError: saying what was asked for, what is there, and what to give instead.
    """
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    if accelerator not in ("gpu", "cuda"):
        return
    there = torch.cuda.device_count()
    asked = devices if isinstance(devices, int) and devices > 0 else 1
    if there < asked:
        raise ConfigError(
            f"trainer.accelerator={accelerator} with trainer.devices={devices} was asked for, but "
            f"torch {torch.__version__} sees {there} GPUs; use trainer=cpu, fewer devices, or a "
            "torch built for this machine's driver"
        )


def check_loggers(loggers: Mapping[str, Any]) -> None:
    """Refuse a logger whose package is not installed; keep wandb offline where it has no key.

    Raises:
        ConfigError: naming the package and the command that installs it.
    """
    for settings in loggers.values():
        if not settings:
            continue
        kind = str(settings["_target_"]).rsplit(".", 1)[-1]
        package = _PACKAGES.get(kind)
        if package is None:
            continue
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"logger={package} needs the package {package}, which is not installed: "
                f"pip install 'mmavlm[{package}]'"
            )
        if package == "wandb" and not _has_wandb_key():
            os.environ.setdefault("WANDB_MODE", "offline")


def _has_wandb_key() -> bool:
    """Whether wandb would find a key: in the environment, or in the user's netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False
