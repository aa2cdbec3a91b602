"""Loggers that cannot work, found before the run starts; and W&B's runs, which end with ours."""

from __future__ import annotations

import importlib.util
import netrc
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger

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


def wandb_to_end(loggers: Iterable[Logger]) -> list[WandbLogger]:
    """The loggers whose W&B run a run of ours will begin, and so has to end.

    There are none where one is open already: who began it goes on with it.
    """
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        return []
    return [logger for logger in loggers if isinstance(logger, WandbLogger)]


def end_wandb(loggers: Iterable[WandbLogger], *, failed: bool = False) -> None:
    """End the W&B runs of loggers; the next run of this process would log into them otherwise."""
    for logger in loggers:
        logger.experiment.finish(exit_code=int(failed))


@contextmanager
def failure_ends_wandb(loggers: Sequence[WandbLogger]) -> Iterator[None]:
    """End the W&B runs of loggers as failed where an error comes through."""
    try:
        yield
    except BaseException:
        end_wandb(loggers, failed=True)
        raise


def _has_wandb_key() -> bool:
    """Whether wandb would find a key: in the environment, or in the user's netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc(os.environ.get("NETRC")).hosts)
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
