"""What a run gives its loggers beside numbers: answers, confusions, similarities, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmavlm.callbacks.picture_loggers import Picture, PictureLogger, StoredFile, picture_loggers
from mmavlm.core.batch import Batch
from mmavlm.core.settings import true_or_false, whole_at_least
from mmavlm.metrics import Prediction
from mmavlm.metrics.confusion import ConfusionCounts
from mmavlm.metrics.predictions import FewOfEach
from mmavlm.report import Confusion, Report, SampleAnswer, Similarity
from mmavlm.report.pictures import (
    confusion_picture,
    explanation_picture,
    largest,
    similarity_picture,
)

FRAMES = 6  # of an item
KEY = "callbacks.pictures"


class LoggedPictures(L.Callback):
    """Show what validation and test came to in loggers that can: TensorBoard, Weights & Biases.

    After every `every_n_validations`-th validation of a training these are the first `per_task`
    items of each task with their frames, and so many that were answered wrong, `most` in all;
    the confusion of each task with classes, its `classes` most frequent ones; or, in stage 1,
    the similarities of the first `pairs` films with their texts, level by level. `show_run` shows
    what the report of a test has of these, and its explanations. With `data` the loggers are told
    which annotation files a run reads, with `model` they get its best checkpoint. Without such a
    logger nothing is done. Of several processes the first shows what it was given itself, and
    the confusions of all.

    Raises:
        ConfigError: if a number is below 0, `every_n_validations` or `classes` is below 1, or
            `data` or `model` is neither true nor false.
    """

    def __init__(
        self,
        per_task: int = 2,
        most: int = 16,
        pairs: int = 16,
        classes: int = 40,
        every_n_validations: int = 1,
        data: bool = True,
        model: bool = False,
    ) -> None:
        whole_at_least(KEY, 0, per_task=per_task, most=most, pairs=pairs)
        whole_at_least(KEY, 1, classes=classes, every_n_validations=every_n_validations)
        true_or_false(KEY, data=data, model=model)
        self.per_task = per_task
        self.most = most
        self.pairs = pairs
        self.classes = classes
        self.every = every_n_validations
        self.tells_data = data
        self.keeps_model = model
        self.loggers: list[PictureLogger] = []
        self._validations = 0
        self._told = False
        self._seen: _Seen | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the loggers that can show pictures."""
        self.loggers = picture_loggers(trainer.loggers)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell which files the set is read from."""
        self._tell_data(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a test; tell the same where nothing was trained."""
        self._tell_data(trainer)
        self._begin(pl_module, {})

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a validation, if it is one to be shown."""
        self._seen = None
        if trainer.sanity_checking:
            return
        self._validations += 1
        if self._validations % self.every == 0:
            stage: Any = pl_module
            self._begin(pl_module, stage.classes)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what is to be shown of the batch."""
        if self._seen is not None:
            self._seen.take(outputs or {}, batch)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show what the validation came to."""
        self._show_seen(trainer, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the similarities of the test; its answers come with the report."""
        self._show_seen(trainer, "test")

    def show_run(self, trainer: L.Trainer, report: Report, checkpoint: Path | None) -> None:
        """Show what a report has of answers, and hand over the best checkpoint; first process."""
        if not self.loggers:
            return
        few = FewOfEach(self.per_task, self.most)
        samples = [s for s in report.samples if few.wants(s.task, right=s.right)]
        step = trainer.global_step
        self._show_answers("test", samples, report.confusions, step)
        explained = [
            Picture(f"{number} {e.video_id}", explanation_picture(e))
            for number, e in enumerate(report.explanations[: self.most], start=1)
        ]
        self._show("test/explanations", explained, step)
        if self.keeps_model and checkpoint is not None:
            file = StoredFile.at(checkpoint.name, checkpoint)
            for logger in self.loggers:
                logger.model(file, _score(trainer))

    def _begin(self, module: L.LightningModule, classes: Mapping[str, Sequence[str]]) -> None:
        if self.loggers:
            few = FewOfEach(self.per_task, self.most)
            counts = ConfusionCounts(classes).to(module.device)
            self._seen = _Seen(few, counts, self.pairs)

    def _show_seen(self, trainer: L.Trainer, split: str) -> None:
        seen, self._seen = self._seen, None
        if seen is None:
            return
        confusions = seen.confusions()  # all processes take part
        if not trainer.is_global_zero:
            return
        self._show_answers(split, seen.samples, confusions, trainer.global_step)
        if (similarity := seen.similarity()) is not None:
            picture = Picture("films and texts", similarity_picture(similarity))
            self._show(f"{split}/similarity", [picture], trainer.global_step)

    def _show_answers(
        self,
        split: str,
        samples: Sequence[SampleAnswer],
        confusions: Sequence[Confusion],
        step: int,
    ) -> None:
        if samples:
            for logger in self.loggers:
                logger.answers(f"{split}/answers", samples, step)
        drawn = [Picture(c.title, confusion_picture(largest(c, self.classes))) for c in confusions]
        self._show(f"{split}/confusion", drawn, step)

    def _show(self, name: str, pictures: Sequence[Picture], step: int) -> None:
        for logger in self.loggers if pictures else ():
            logger.pictures(name, pictures, step)

    def _tell_data(self, trainer: L.Trainer) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        if not self.loggers or not self.tells_data or self._told or not trainer.is_global_zero:
            return
        self._told = True
        paths: Mapping[str, Path] = getattr(data, "annotation_files", {})
        if paths:
            files = [StoredFile.at(name, path) for name, path in paths.items()]
            name = "-".join(data.sets) or Path(data.root).name
            for logger in self.loggers:
                logger.data(name, files)


class _Seen:
    """What one validation or test has to show, as its batches come."""

    def __init__(self, few: FewOfEach, counts: ConfusionCounts, pairs: int) -> None:
        self.samples: list[SampleAnswer] = []
        self._few = few
        self._counts = counts
        self._pairs = pairs
        self._films: list[str] = []
        self._texts: list[str] = []
        self._features: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def take(self, outputs: Mapping[str, Any], batch: Batch) -> None:
        """Take what a stage has made of a batch: what it answered, or films and texts compared."""
        answered: Sequence[Prediction] = outputs.get("answered", ())
        self._counts.update(answered)
        for row in answered:
            if self._few.wants(row.task, right=row.right):
                frames = batch.pictures_of(batch.item_id.index(row.item_id), FRAMES)
                self.samples.append(SampleAnswer.of(row, frames))
        for rows, features in outputs.get("compared", ()):
            self._compare(rows, features)

    def _compare(self, rows: Batch, features: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        missing = self._pairs - len(self._films)
        if missing <= 0:
            return
        self._films += rows.video_id[:missing]
        self._texts += rows.target[:missing]
        for level, both in features.items():
            film, text = (part[:missing].detach().float().cpu() for part in both)
            self._features.setdefault(level, []).append((film, text))

    def confusions(self) -> list[Confusion]:
        """The confusion of each task with classes, over all processes."""
        classes = self._counts.classes
        found = self._counts.compute() if classes else {}
        return [
            Confusion(task, classes[task], counts, left_out=left_out)
            for task, (counts, left_out) in found.items()
        ]

    def similarity(self) -> Similarity | None:
        """The cosines of the first films with the texts of all of them; None without any."""
        if not self._films:
            return None
        levels = {}
        for level, parts in self._features.items():
            films, texts = (
                F.normalize(torch.cat(side), dim=-1) for side in zip(*parts, strict=True)
            )
            levels[level] = (films @ texts.T).numpy()
        words = np.array(self._texts)
        return Similarity(self._films, self._texts, levels, words[:, None] == words)


def _score(trainer: L.Trainer) -> float | None:
    """The score of the best checkpoint, by which it was chosen."""
    best = getattr(trainer.checkpoint_callback, "best_model_score", None)
    return None if best is None else float(best)
