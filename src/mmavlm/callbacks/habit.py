"""How many answers of a test are habit: every question again, without the film and out of order."""

from __future__ import annotations

from typing import Any

import lightning as L

from mmavlm.core.batch import Batch
from mmavlm.core.errors import ConfigError
from mmavlm.metrics import Prediction
from mmavlm.metrics.habit import HABITUAL, HabitualAnswers
from mmavlm.model.otherwise import VIEWS, WITHOUT_FILM, other_views

BOUNDS = ("", "_low", "_high")
TOLD = {"same": "same", "right": "top1"}  # of the metric, and in metrics.json


class HabitScores(L.Callback):
    """Ask every question of a test again, without its film and with its frames shuffled.

    Logged for each view, such as `without_film`: `test/without_film/same`, the share of answers
    that stay; `test/without_film/top1`, the share that is right there; and of wrong answers alone
    `test/habitual_mistakes`, the share that the model gives without the film, too. Captions are
    left out. A test takes about three times as long.

    Raises:
        ConfigError: at a test, if its stage answers no questions.
    """

    def __init__(self) -> None:
        self.scores = {view: HabitualAnswers() for view in VIEWS}

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget an earlier test."""
        stage: Any = pl_module
        if getattr(stage, "predictions", None) is None or not hasattr(stage, "answer"):
            raise ConfigError(
                f"callbacks.habit asks questions again, and {type(stage).__name__} answers none; "
                "choose stage=finetune, or callbacks.habit=null"
            )
        for scores in self.scores.values():
            scores.reset()
            scores.to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Answer the other views of the batch that was answered."""
        stage: Any = pl_module
        if len(batch) == 0:
            return
        with trainer.precision_plugin.test_step_context():
            encoded = stage.backbone.encoded(batch)
            answered = {
                name: stage.answer(view, stage.answer_by)[1]
                for name, view in other_views(encoded).items()
            }
        for name, others in answered.items():
            of_film = [stage.predictions.rows[other.item_id] for other in others]
            self._take(name, of_film, others)

    def _take(self, view: str, of_film: list[Prediction], others: list[Prediction]) -> None:
        pairs = zip(of_film, others, strict=True)
        kept = [(row, other) for row, other in pairs if row.right is not None]
        if not kept:
            return
        self.scores[view].update(
            [row.item_id for row, _ in kept],
            [row.best for row, _ in kept],
            [other.best for _, other in kept],
            [bool(row.right) for row, _ in kept],
            [bool(other.right) for _, other in kept],
        )

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the shares over all processes."""
        values: dict[str, float] = {}
        for view, scores in self.scores.items():
            found = scores.compute()
            if not found["count"]:
                continue
            for kind, told in TOLD.items():
                values |= {f"test/{view}/{told}{end}": found[f"{kind}{end}"] for end in BOUNDS}
            if view == WITHOUT_FILM and found["wrong_count"]:
                values |= {f"test/{HABITUAL}{end}": found[f"habitual{end}"] for end in BOUNDS}
        pl_module.log_dict(values, sync_dist=True)
