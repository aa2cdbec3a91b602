"""The number that checkpoints are chosen by, where a validation does not give it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException

from mmavlm.core.errors import ConfigError


@contextmanager
def monitor_told(trainer: L.Trainer, monitor: str) -> Iterator[None]:
    """Say of a `stage.monitor` that no validation logs which numbers there are.

    Raises:
        ConfigError: in place of Lightning's own error.
    """
    try:
        yield
    except MisconfigurationException as error:
        logged = sorted(name for name in trainer.callback_metrics if name.startswith("val/"))
        if not logged or monitor in trainer.callback_metrics:
            raise
        raise ConfigError(
            f"stage.monitor={monitor} is no number of a validation; choose one of "
            + ", ".join(logged)
        ) from error
