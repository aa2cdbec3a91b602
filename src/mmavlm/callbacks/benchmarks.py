"""Hallucination benchmarks in a run: as its test split, and beside its validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from mmavlm.core.errors import ConfigError
from mmavlm.core.items import Item
from mmavlm.metrics import Prediction
from mmavlm.metrics.benchmarks import Benchmark
from mmavlm.metrics.headline import every_score
from mmavlm.metrics.table import score_table
from mmavlm.metrics.taken import in_parts

TEST = "test"


@runtime_checkable
class ScoredReader(Protocol):
    """A reader of a benchmark, which has metrics of its own."""

    def scores(self, tasks: Sequence[str]) -> Benchmark:
        """The metrics for the tasks that occur."""


class BenchmarkScores(L.Callback):
    """After a test on a benchmark: its own metrics, logged as `test/<benchmark>…` and printed.

    On any other data it does nothing. Every answer is the best one generated.
    """

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score what the stage has kept of this process's answers, and gather."""
        data: Any = getattr(trainer, "datamodule", None)
        if not isinstance(getattr(data, "reader", None), ScoredReader):
            return
        scores = data.reader.scores(data.tasks([TEST])).to(pl_module.device)
        answered: Any = pl_module.predictions
        known = {item.item_id: item for item in data.items(TEST)}
        for rows in in_parts(answered.read()):
            _take(scores, known, rows)
        values = scores.compute()
        pl_module.log_dict({f"{TEST}/{name}": v for name, v in values.items()}, sync_dist=True)
        if values and trainer.is_global_zero:
            named = {name.removeprefix(f"{scores.name}/"): v for name, v in values.items()}
            Console().print(score_table(scores.name, every_score(named)))


class HallucinationProbe(L.Callback):
    """A benchmark that is asked after each validation of a training run: `val/<benchmark>…`.

    `data` is the benchmark's own datamodule; every `every_n_validations`-th time its test split is
    answered by the model as it stands. The numbers go where those of the validation go.

    Raises:
        ConfigError: if the data are no benchmark, or the run trains from cached features.
    """

    def __init__(self, data: Any, every_n_validations: int = 1) -> None:
        if not isinstance(data.reader, ScoredReader):
            raise ConfigError(
                f"callbacks.hallucination.data reads with {type(data.reader).__name__}, which is "
                "no benchmark; choose data@callbacks.hallucination.data=videohallucer or another"
            )
        if every_n_validations < 1:
            raise ConfigError(
                f"callbacks.hallucination.every_n_validations must be at least 1, "
                f"got {every_n_validations}"
            )
        self.data = data
        self.every = every_n_validations
        self.validations = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the encoder's size of pictures, and read the annotation before training."""
        if stage != "fit":
            return
        if getattr(getattr(trainer, "datamodule", None), "cache", None) is not None:
            raise ConfigError(
                "callbacks=hallucination needs the encoder, which a run with data.cache does not "
                "build; set data.cache=null, or evaluate the checkpoint afterwards"
            )
        module: Any = pl_module
        self.data.image_size = self.data.image_size or module.backbone.vision.encoder.image_size
        self.data.items(TEST)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Answer the benchmark's questions and log its metrics."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self.validations += 1
        if self.validations % self.every:
            return
        scores = self.data.reader.scores(self.data.tasks([TEST])).to(pl_module.device)
        known = {item.item_id: item for item in self.data.items(TEST)}
        stage: Any = pl_module
        for batch in self._loader(trainer):
            self.data.broken.add(batch.broken)
            if len(batch):
                batch = stage.transfer_batch_to_device(batch, pl_module.device, 0)
                with trainer.precision_plugin.val_step_context():
                    _, answered = stage.answer(batch)
                _take(scores, known, answered)
        values = scores.compute()
        pl_module.log_dict({f"val/{name}": v for name, v in values.items()}, sync_dist=True)

    def _loader(self, trainer: L.Trainer) -> DataLoader[Any]:
        loader: DataLoader[Any] = self.data.test_dataloader()
        if trainer.world_size == 1:
            return loader
        # padded at the end, which the metrics undo: an item seen twice counts once
        sampler: DistributedSampler[Any] = DistributedSampler(
            loader.dataset, trainer.world_size, trainer.global_rank, shuffle=False
        )
        return DataLoader(
            loader.dataset,
            batch_size=loader.batch_size,
            sampler=sampler,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
        )


def _take(scores: Benchmark, known: Mapping[str, Item], rows: Sequence[Prediction]) -> None:
    """Feed the metrics with predictions, each looked up among the items by its id."""
    answers = [row.answers[0].text if row.answers else "" for row in rows]
    scores.update([known[row.item_id] for row in rows], answers)
