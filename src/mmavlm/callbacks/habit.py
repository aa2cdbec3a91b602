"""How many answers of a test are habit: every question again, without the film and out of order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L

from mmavlm.core.batch import Batch
from mmavlm.core.errors import ConfigError
from mmavlm.metrics import Prediction
from mmavlm.metrics.habit import HABITUAL, HabitualAnswers
from mmavlm.model.otherwise import VIEWS, WITHOUT_FILM, other_views

NAME = "habit"  # under which a test keeps what was answered
BOUNDS = ("", "_low", "_high")
TOLD = {"same": "same", "right": "top1"}  # of the metric, and in metrics.json


class Pair(NamedTuple):
    """A question's best answers, about its film and without it, and whether they are right."""

    item: str
    of_film: str
    other: str
    right: bool
    other_right: bool


def _pair(row: Prediction, other: Prediction) -> Pair | None:
    """Both answers to a question; None for captions, which are neither right nor wrong."""
    if row.right is None:
        return None
    return Pair(row.item_id, row.best, other.best, row.right, bool(other.right))


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
        """Answer the other views of the batch; a test that goes on has kept its own."""
        stage: Any = pl_module
        for kept in stage.predictions.kept(NAME):
            for view, pairs in kept.items():
                self._take(view, [Pair(*pair) for pair in pairs])
        if len(batch) == 0:
            return
        with trainer.precision_plugin.test_step_context():
            encoded = stage.backbone.encoded(batch)
            answered = {
                name: stage.answer(view, stage.answer_by)[1]
                for name, view in other_views(encoded).items()
            }
        of_film = stage.predictions.latest
        found = {
            view: [
                pair
                for other in others
                if (pair := _pair(of_film[other.item_id], other)) is not None
            ]
            for view, others in answered.items()
        }
        for view, pairs in found.items():
            self._take(view, pairs)
        stage.predictions.keep(NAME, found)

    def _take(self, view: str, pairs: Sequence[Pair]) -> None:
        if pairs:
            columns = zip(*pairs, strict=True)
            self.scores[view].update(*map(list, columns))

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
