"""Loggers that cannot work, found before the run starts."""

from __future__ import annotations

import importlib.util
import netrc
import os
from collections.abc import Mapping
from typing import Any

from mmavlm.core.errors import ConfigError
from mmavlm.core.extras import needs_extra

# By the last part of `_target_`: the package a logger needs, which is also the extra's name.
PACKAGES = {"WandbLogger": "wandb", "TensorBoardLogger": "tensorboard"}


def check_loggers(loggers: Mapping[str, Any]) -> None:
    """Refuse a logger whose package is not installed; keep wandb offline where it has no key.

    Raises:
        ConfigError: naming the package and the command that installs it.
    """
    for settings in loggers.values():
        package = PACKAGES.get(str(settings["_target_"]).rsplit(".", 1)[-1]) if settings else None
        if package is None:
            continue
        if importlib.util.find_spec(package) is None:
            raise ConfigError(needs_extra(f"logger={package}", package, package))
        if package == "wandb" and not _has_wandb_key():
            os.environ.setdefault("WANDB_MODE", "offline")


def _has_wandb_key() -> bool:
    """Whether wandb would find a key: in the environment, or in the user's netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc(os.environ.get("NETRC")).hosts)
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
