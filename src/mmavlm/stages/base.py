"""What both stages do alike: optimizer, checkpoint contents, broken videos, logging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, cast

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from mmavlm.core.batch import Batch
from mmavlm.core.errors import DataError
from mmavlm.core.ranks import Ranks
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.stages.answered_before import Keeping
from mmavlm.stages.optim import OptimizerRecipe
from mmavlm.stages.predictions import PredictionLog
from mmavlm.weights import moved
from mmavlm.weights.checkpoint import (
    GATHERING_KEY,
    METRICS_KEY,
    PLACE_KEY,
    RNG_KEY,
    RUN_KEY,
    load_trainable,
    trainable_state,
)
from mmavlm.weights.seal import sealed

EVALUATED = ("val", "test")
GO_ON, SKIP, STOP = range(3)


class Stage(L.LightningModule):
    """A training stage over the shared backbone.

    `run` is stored in every checkpoint: the stage's name, the resolved config, the overrides.
    `sets` are the names of sets that are mixed: tasks then begin with one (`lvu/genre`), and
    metrics of evaluation are logged for each.
    """

    number: ClassVar[int | None] = None  # of the paper's two
    # Whether a test needs a validation by the same weights.
    validates_before_test: ClassVar[bool] = False
    # Checkpoints hold trainable weights only; `on_load_checkpoint` compares the keys instead.
    strict_loading = False

    def __init__(
        self,
        backbone: VideoLanguageModel,
        optimizer: OptimizerRecipe,
        run: dict[str, Any] | None = None,
        sets: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.sets = tuple(sets)
        self.set_losses = nn.ModuleDict(
            {f"{split}_{name}": MeanMetric() for split in EVALUATED for name in self.sets}
        )
        self.backbone = backbone
        self.recipe = optimizer
        self.classes: dict[str, list[str]] = {}  # names of each task's classes
        self.predictions: PredictionLog | None = None  # of a test, if the stage answers
        self.keeping: Keeping | None = None  # of the answers of a test that may be killed
        self.metrics_before: dict[str, float] = {}  # logged by the run that is resumed
        self._resumed: dict[str, Any] = {}  # the checkpoint that is resumed, until training starts
        self._ranks = Ranks()
        self._learnt = False  # whether a batch of the coming optimizer step could be read
        self.run = sealed({"stage": type(self).__name__, **(run or {})})

    def gather(self) -> None:
        """Bring what all processes keep of a test together, in the first one at least."""
        if self.predictions is not None:
            self.predictions.gather()

    def write(self, folder: Path) -> None:
        """Write what is kept of a test into the folder of a run."""
        if self.predictions is not None:
            self.predictions.write(folder / "predictions.jsonl")

    @property
    def notes(self) -> dict[str, str]:
        """What a report says of a test in words, by what it is about."""
        return {}

    @property
    def title(self) -> str:
        """What a page calls the stage."""
        return type(self).__name__ if self.number is None else f"stage {self.number}"

    def setup(self, stage: str) -> None:
        """Refuse films of more frames than the model has positions for, before any is read.

        Raises:
            ConfigError: naming both numbers.
        """
        if (num_frames := self.num_frames()) is not None:
            self.backbone.check_frames(num_frames)

    def num_frames(self) -> int | None:
        """How many frames the trainer's films have at most, None where its data do not say."""
        datamodule = getattr(self.trainer, "datamodule", None)
        found: int | None = getattr(datamodule, "settings", {}).get("num_frames")
        return found

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, counted in optimizer steps."""
        self.trainer.fit_loop.setup_data()  # or a training without end would know no epoch
        batches = self.trainer.num_training_batches
        optimizer, schedule = self.recipe.build(
            self.named_parameters(),
            total_steps=int(self.trainer.estimated_stepping_batches),
            epoch_steps=ceil(batches / self.trainer.accumulate_grad_batches),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "lr"},
        }

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The stage's weighted loss, or None where there is nothing to learn from.

        That is where nothing could be read of some rank's batch, or nothing in it is learned.
        Gradients are gathered over ranks, so all of them leave out such a step, and all stop where
        one has too many broken videos.
        """
        if self._skip_alike(batch):
            return self._nothing() if distributed() else None
        losses = self.losses(batch)
        self._log_losses("train", losses, batch)
        if not losses["loss"].requires_grad:  # texts alone, of an LLM that is frozen
            return self._nothing() if distributed() else None
        self._learnt = True
        return losses["loss"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The stage's loss terms by name, their weighted sum under `loss`."""
        raise TypeError(f"{type(self).__name__} does not define its losses")

    def _log_losses(self, split: str, losses: dict[str, Tensor], rows: Sized) -> None:
        training = split == "train"
        for name, value in losses.items():
            self.log(
                f"{split}/{name}",
                value.detach(),
                prog_bar=name == "loss",
                on_step=training,
                on_epoch=not training,
                sync_dist=not training,
                batch_size=len(rows),
            )

    def _log_metrics(self, metrics: Mapping[str, Any], *, prog_bar: bool = False) -> None:
        """Log what torchmetrics computed over all processes at the end of an epoch."""
        # The values are equal already. Lightning cannot know, and warns unless it takes their mean.
        self.log_dict(dict(metrics), prog_bar=prog_bar, sync_dist=True)

    def set_of(self, task: str) -> str:
        """The set that a task is of, "" where sets are not mixed."""
        return next((name for name in self.sets if task.startswith(f"{name}/")), "")

    def _by_set(self, batch: Batch) -> Iterator[tuple[str, Batch]]:
        """The rows of each set in a batch, by the set's name."""
        names = [self.set_of(task) for task in batch.task]
        if len(set(names)) == 1:
            yield names[0], batch
            return
        for name in dict.fromkeys(names):
            yield name, batch.rows([row for row, other in enumerate(names) if other == name])

    def _note_set_loss(self, split: str, name: str, loss: Tensor, rows: int) -> None:
        """Count the loss of some rows of a set, to be logged at the end of the split."""
        if name:
            self._set_loss(split, name).update(loss.detach(), rows)

    def _log_set_losses(self, split: str, term: str) -> None:
        """Log the mean loss of each set; computed on every rank, also one that saw none of it."""
        for name in self.sets:
            metric = self._set_loss(split, name)
            seen = metric.update_called
            mean = metric.compute() if seen or distributed() else None
            metric.reset()
            if mean is not None and not bool(mean.isnan()):
                self._log_metrics({f"{split}/{name}/{term}": mean})

    def _set_loss(self, split: str, name: str) -> MeanMetric:
        return cast(MeanMetric, self.set_losses[f"{split}_{name}"])

    def _skip(self, batch: Batch) -> bool:
        """Count the batch's broken videos; True if none of its rows is left."""
        if batch.broken and (datamodule := getattr(self.trainer, "datamodule", None)) is not None:
            datamodule.broken.add(batch.broken)
        return len(batch) == 0

    def _nothing(self) -> Tensor:
        """A loss without effect: gradients must be summed over ranks where there are several."""
        return torch.stack([p.sum() for p in self.parameters() if p.requires_grad]).sum() * 0.0

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer leave all as it is where no batch of the step could be read."""
        if not self._learnt:
            for parameter in self.parameters():
                parameter.grad = None
        self._learnt = False

    def _skip_alike(self, batch: Batch) -> bool:
        """As `_skip`, decided by all ranks: True where it is for any of them.

        Raises:
            DataError: on all ranks, if the budget for broken videos is spent on one.
        """
        spent: DataError | None = None
        try:
            code = SKIP if self._skip(batch) else GO_ON
        except DataError as error:
            spent, code = error, STOP
        code = self._ranks.highest(code)
        if code == STOP:
            raise spent or DataError("another rank found too many broken videos; its log has them")
        return code == SKIP

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep trainable weights alone, and say which run they come from."""
        names = trainable_state(self)
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if name in names
        }
        checkpoint[RUN_KEY] = self.run
        checkpoint[RNG_KEY] = torch.get_rng_state()
        if self._trainer is not None:
            checkpoint |= self._place()

    def _place(self) -> dict[str, Any]:
        """Where training has come to, and what it logged."""
        logged = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        place = {GATHERING_KEY: self._gathering(), METRICS_KEY: self.metrics_before | logged}
        loader: Any = self.trainer.train_dataloader
        if hasattr(loader, "state_dict"):
            place[PLACE_KEY] = loader.state_dict()
        return place

    def _gathering(self) -> bool:
        """Whether some, but not all batches of an optimizer step were seen."""
        seen = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return seen % self.trainer.accumulate_grad_batches != 0 and not self.trainer.is_last_batch

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another architecture, naming the keys; take this run's recipe."""
        # Lightning read the file itself, and takes the weights from here
        checkpoint["state_dict"] = moved.weights(checkpoint["state_dict"])
        load_trainable(self, checkpoint["state_dict"], "the checkpoint to resume from")
        self._resumed = {key: checkpoint[key] for key in (RNG_KEY, PLACE_KEY) if key in checkpoint}
        self.metrics_before = checkpoint.get(METRICS_KEY, {})
        states = (checkpoint.get("optimizer_states") or (), checkpoint.get("lr_schedulers") or ())
        for optimizer, schedule in zip(*states, strict=True):
            self.recipe.lay_over(optimizer, schedule)

    def on_train_start(self) -> None:
        """Load and draw on where the run that is resumed left off.

        Lightning would tell the loader before, but not where the optimizer's schedule has asked for
        the number of steps, and with it for the loader, before there was a checkpoint.
        """
        resumed, self._resumed = self._resumed, {}
        if RNG_KEY in resumed:
            torch.set_rng_state(resumed[RNG_KEY])
        loader: Any = self.trainer.train_dataloader
        if PLACE_KEY in resumed and hasattr(loader, "load_state_dict"):
            loader.load_state_dict(resumed[PLACE_KEY])


def distributed() -> bool:
    """Whether several processes train together."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()
