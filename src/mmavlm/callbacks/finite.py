"""Steps whose gradients are no numbers: named, left out, and the end of a run if there are many."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.nn.utils import get_total_norm

from mmavlm.core.errors import ConfigError, DivergedError
from mmavlm.core.files import BEFORE_DAMAGE

log = logging.getLogger(__name__)

LISTED = 16


class FiniteGuard(L.Callback):
    """Leaves out optimizer steps whose gradients are not finite; after `max_skipped` it stops.

    A step that is left out changes neither weights nor the optimizer's moments, so those of the
    checkpoint `<dirpath>/before_damage.ckpt`, written before stopping, are sound. Gradients are
    summed over ranks before, so that all ranks decide alike. With a gradient scaler (16-mixed),
    whose first steps overflow by design, only that scaler skips.

    Raises:
        ConfigError: if `max_skipped` is below 0.
        DivergedError: naming steps and items, once more steps than that were left out.
    """

    def __init__(self, dirpath: str | Path, max_skipped: int = 10) -> None:
        if max_skipped < 0:
            raise ConfigError(f"callbacks.finite.max_skipped must be at least 0, got {max_skipped}")
        self.dirpath = Path(dirpath)
        self.max_skipped = max_skipped
        self.skipped = 0
        self._items: list[str] = []  # of the step that is being gathered
        self._last = ""  # the last step that was left out, and its items

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note which items the coming step is of."""
        self._items += getattr(batch, "item_id", [])

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Take the gradients away where one of them is not finite."""
        items, self._items = self._items, []
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        if scaled or not gradients or bool(torch.isfinite(get_total_norm(gradients))):
            return
        for parameter in pl_module.parameters():
            parameter.grad = None
        self.skipped += 1
        self._last = f"step {trainer.global_step} and its items {told(items)}"
        log.warning("left out %s: the loss or gradients are not finite", self._last)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop once too many steps were left out."""
        if self.skipped <= self.max_skipped:
            return
        path = self.dirpath / BEFORE_DAMAGE
        trainer.save_checkpoint(path)
        raise DivergedError(
            f"the gradients of {self.skipped} steps were not finite, more than "
            f"callbacks.finite.max_skipped={self.max_skipped} allows; the last: {self._last}. "
            f"{path} holds the weights as they were. Lower optimizer.lr, set "
            "trainer.gradient_clip_val, or look at these items"
        )

    def state_dict(self) -> dict[str, Any]:
        """How many steps were left out; a run that is resumed counts on."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from a checkpoint."""
        self.skipped = state_dict["skipped"]


def told(items: list[str]) -> str:
    """The first of the items."""
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more
