"""Checkpoints between the ends of epochs: every so many steps, and when a signal ends the run."""

from __future__ import annotations

import logging
import math
import signal
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Checkpoint

from mmavlm.callbacks.signals import Signals, exit_at_once, exit_status, handle, requeue_job
from mmavlm.core.errors import ConfigError
from mmavlm.core.ranks import Ranks

log = logging.getLogger(__name__)


class StepCheckpoint(Checkpoint):
    """Writes `<dirpath>/step.ckpt` after every `every_n_steps` optimizer steps (null: never).

    SIGTERM, Ctrl-C and SLURM's SIGUSR1 end the run after the optimizer step that is being gathered,
    with a checkpoint, in whichever process they come; with `requeue` SIGUSR1 also puts a job of
    SLURM back into its queue. Checkpoints lie between optimizer steps, so that no gathered gradient
    is lost, and never where a validation follows, which a resumed run would leave out: there the
    next step is waited for, or the end of the epoch.

    Raises:
        ConfigError: if `every_n_steps` is below 1.
        SystemExit: 128 + the signal's number, once a signal was heeded.
    """

    def __init__(
        self, dirpath: str | Path, every_n_steps: int | None = 1000, requeue: bool = True
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ConfigError(
                f"callbacks.step_checkpoint.every_n_steps must be at least 1, got {every_n_steps}; "
                "null writes none between the ends of epochs"
            )
        self.path = Path(dirpath) / "step.ckpt"
        self.every_n_steps = math.inf if every_n_steps is None else every_n_steps
        self.requeue = requeue
        self._signals = Signals()
        self._ranks = Ranks()
        self._before = 0  # optimizer steps done when the batch began
        self._saved = 0  # and when the last checkpoint was written

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to signals in place of Lightning, which would end between any two batches."""
        if trainer.received_sigterm:
            exit_at_once(signal.SIGTERM)
        self._signals.listen()
        self._saved = trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note how many steps were done."""
        self._before = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write a checkpoint if one is due or the run is to end, and gradients are not gathered."""
        step = trainer.global_step
        if step == self._before or validation_follows(trainer, batch_idx):
            return
        ending = self._ending()
        if ending or step - self._saved >= self.every_n_steps:
            trainer.save_checkpoint(self.path)
            self._saved = step
        if ending:
            self._end(trainer, ending, f"saved {self.path}")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End here what was to end with the last step of the epoch before."""
        if ending := self._ending():
            self._end(trainer, ending, "between two epochs")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave out the test if the run was to end with its last step."""
        if ending := self._ending():
            self._end(trainer, ending, "training was done, the test is not")

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A test has nothing to save."""
        if trainer.received_sigterm:
            exit_at_once(signal.SIGTERM)
        handle(signal.SIGTERM, exit_at_once)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write logs first, so that they are there up to every checkpoint."""
        for logger in trainer.loggers:
            logger.save()

    def _ending(self) -> int:
        """The signal that ends the run, on all ranks alike; 0 for none."""
        return self._ranks.highest(self._signals.number)

    def _end(self, trainer: L.Trainer, number: int, where: str) -> None:
        name, step = signal.Signals(number).name, trainer.global_step
        log.warning(
            "ended by %s after step %d (%s); resume=auto with the same hydra.run.dir goes on",
            name, step, where,
        )  # fmt: skip
        queued = number == signal.SIGUSR1 and self.requeue and SLURMEnvironment.detect()
        if queued and trainer.is_global_zero:
            requeue_job()
        raise SystemExit(exit_status(number))


def validation_follows(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether validation, or the end of the epoch, comes right behind a training batch."""
    if trainer.is_last_batch:
        return True
    every = trainer.val_check_batch
    if every is None:  # by time: nobody knows
        return False
    epochs = trainer.check_val_every_n_epoch
    if epochs is None:
        return (trainer.fit_loop.total_batch_idx + 1) % every == 0
    return (trainer.current_epoch + 1) % epochs == 0 and (batch_idx + 1) % every == 0
