"""How much of the training time goes by waiting for data."""

from __future__ import annotations

import time
from typing import Any

import lightning as L


class LoaderWait(L.Callback):
    """Logs `train/wait`, the share of the epoch so far in which the next batch was not there yet.

    Near 0 the loader keeps up; otherwise more workers, or a feature cache, make training faster.
    """

    def __init__(self) -> None:
        self._start = self._mark = time.perf_counter()
        self._waited = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count; the first batch is waited for too."""
        self._start = self._mark = time.perf_counter()
        self._waited = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch has come."""
        self._waited += time.perf_counter() - self._mark

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """From now on the next one is waited for."""
        self._mark = time.perf_counter()
        share = self._waited / (self._mark - self._start)
        pl_module.log("train/wait", share, prog_bar=True, batch_size=1)
