"""How much is trained a second, and which share of what the device can do that is."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor

from mmavlm.callbacks.peak import peak_of
from mmavlm.core.batch import Batch
from mmavlm.core.settings import above_zero, whole_at_least
from mmavlm.model.flops import StepFlops

log = logging.getLogger(__name__)

TEXT_TOKENS = 64  # of a text that a film is aligned with; it weighs little
GUIDE_TOKENS = 32  # where no Q-Former reads guides, and tells their length


@dataclass
class Done:
    """What was trained on so far. Tensors stay where they are: nothing waits for the device."""

    time_s: float = 0.0
    items: int = 0
    frames: Tensor | int = 0
    tokens: Tensor | int = 0
    flops: int = 0


class Throughput(L.Callback):
    """Logs `train/items_s`, `frames_s`, `tokens_s` and `mfu`, over the last `window` batches.

    Items, real frames and real tokens of the language model a second are those of this process
    times the number of processes. `mfu` is the share of the device's peak that the work of a step
    takes (`model.flops`): it is there where the peak is known by the device's name, or given as
    `peak_flops`, in operations a second of one device. Where a memory's looks are all learned from
    (the duet), that work is not known, and there is no `mfu`. The first batch of an epoch, or
    behind a validation, is left out.

    Raises:
        ConfigError: naming `callbacks.throughput.window` or `.peak_flops`, if they are no numbers
            above 0.
    """

    def __init__(self, window: int = 50, peak_flops: float | None = None) -> None:
        whole_at_least("callbacks.throughput", 1, window=window)
        above_zero("callbacks.throughput", peak_flops=peak_flops)
        self.window = window
        self.peak_flops = peak_flops
        self._done = Done()
        self._marks: deque[Done] = deque(maxlen=window + 1)
        self._flops: StepFlops | None = None
        self._peak: float | None = None
        self._hooks: list[Any] = []
        self._reads = False  # whether there is a language model
        self._guide_tokens = GUIDE_TOKENS
        self._training = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look through the model's layers, and count from now on what its language model reads."""
        backbone: Any = pl_module.backbone
        device = trainer.strategy.root_device
        self._peak = self.peak_flops or peak_of(device, str(trainer.precision))
        if self._peak is None and device.type == "cuda":
            log.info(
                "no mfu, since the peak of %s is not known; give callbacks.throughput.peak_flops",
                torch.cuda.get_device_name(device),
            )
        looks_learned = backbone.heads is not None and backbone.vision.temporal.looks_at(2) == 1
        known = self._peak is not None and not looks_learned
        self._flops = StepFlops(backbone) if known else None
        self._reads = backbone.llm is not None
        if self._reads:
            self._hooks = [backbone.llm.model.register_forward_hook(self._read, with_kwargs=True)]
        if (qformer := getattr(backbone.vision.temporal, "qformer", None)) is not None:
            self._hooks.append(qformer.embeddings.register_forward_hook(self._guided))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin anew: the first batch waits for workers to start."""
        self._marks.clear()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin anew: the time of a validation is none of training."""
        self._marks.clear()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """From now on what is read is trained on."""
        self._training = True

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Add the batch, and log the rates since the oldest one of the window."""
        self._training = False
        done = self._done
        done.items += len(batch)
        done.frames = done.frames + batch.frame_mask.sum()
        if self._flops is not None:
            done.flops += self._seen(self._flops, batch)
        done.time_s = time.perf_counter()
        self._marks.append(Done(**vars(done)))
        if len(self._marks) > 1:
            rates = self._rates(self._marks[0], trainer.world_size)
            named = {f"train/{name}": rate for name, rate in rates.items()}
            pl_module.log_dict(named, prog_bar=True, batch_size=1)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Count no more what is read."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _rates(self, since: Done, processes: int) -> dict[str, Tensor | float]:
        done = self._done
        seconds = done.time_s - since.time_s
        rates: dict[str, Tensor | float] = {
            "items_s": processes * (done.items - since.items) / seconds,
            "frames_s": processes * (done.frames - since.frames) / seconds,
        }
        if self._reads:
            rates["tokens_s"] = processes * (done.tokens - since.tokens) / seconds
        if self._flops is not None and self._peak is not None:
            rates["mfu"] = (done.flops - since.flops) / seconds / self._peak
        return rates

    def _seen(self, flops: StepFlops, batch: Batch) -> int:
        """The work of the branches on a batch, padding included."""
        films, frames = batch.frame_mask.shape
        found = 0
        if films:
            views = len(batch.views.films)
            found += flops.seen(films, views, frames, self._guide_tokens, TEXT_TOKENS)
        if batch.clip_mask is not None:
            found += flops.heard(*batch.clip_mask.shape)
        return found

    def _guided(self, module: Any, args: Any, read: Any) -> None:
        """Note how long guides are, padding included."""
        _, text = args
        self._guide_tokens = 0 if text is None else text.ids.shape[1]

    def _read(self, module: Any, args: Any, given: dict[str, Any], read: Any) -> None:
        """Count the rows that the language model reads while it trains."""
        if not self._training:
            return
        inputs = given["inputs_embeds"]
        self._done.tokens = self._done.tokens + given["attention_mask"].sum()
        if self._flops is not None and self._flops.read is not None:
            rows, positions = inputs.shape[:2]
            predicted, learns = read.logits.shape[1], torch.is_grad_enabled()
            self._done.flops += self._flops.read(rows, positions, predicted, learns=learns)
