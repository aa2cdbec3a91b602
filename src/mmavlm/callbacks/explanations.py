"""What a few answers of a test rest on, for its report."""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from typing import Any

import lightning as L
from torch import nn
from torch.distributed.tensor import DTensor

from mmavlm.core.batch import Batch
from mmavlm.core.errors import ConfigError
from mmavlm.model.explain import STRETCHES, Explanation, explain, has_memory, stretches_of

log = logging.getLogger(__name__)


class ExplainAnswers(L.Callback):
    """Explain the best answers to the first `per_task` items of each task in a test.

    `stretches` of each film are hidden in turn, or as many as it has frames; with 0 none is. The
    first process explains what it is given itself. It cannot where weights are spread over several
    processes, all of which would have to take part.

    Raises:
        ConfigError: if `per_task` is below 0, or `stretches` is 1 or below 0.
    """

    def __init__(self, per_task: int = 1, stretches: int = STRETCHES) -> None:
        if per_task < 0:
            raise ConfigError(
                f"callbacks.explanations.per_task={per_task}; give how many answers of each task "
                "are to be explained, 0 for none"
            )
        if stretches < 0 or stretches == 1:
            raise ConfigError(
                f"callbacks.explanations.stretches={stretches}; give 2 or more, of which one at a "
                "time is hidden, or 0 to hide nothing"
            )
        self.per_task = per_task
        self.stretches = stretches
        self.explained: list[Explanation] = []

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget an earlier test; say so if nothing can be explained."""
        self.explained = []
        stage: Any = pl_module
        if self.per_task and _spread(pl_module):
            log.warning("no answer is explained, since the weights are spread over processes")
        elif self.per_task and not has_memory(stage.backbone):
            log.warning("no answer is explained, since this model has no memory to show")

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Explain those of the batch's answers that are still wanted."""
        stage: Any = pl_module
        answered = getattr(stage, "predictions", None)
        if answered is None or not trainer.is_global_zero or _spread(pl_module):
            return
        if not has_memory(stage.backbone):
            return
        done = Counter(explained.task for explained in self.explained)
        for row, (task, item) in enumerate(zip(batch.task, batch.item_id, strict=True)):
            if done[task] >= self.per_task:
                continue
            said = answered.latest[item].answers or answered.latest[item].ranking
            film = batch.film_of(row)
            frames = 0 if film is None else int(batch.frame_mask[film].sum())
            if not said or not said[0].text.strip() or frames == 0:
                continue
            stretches = stretches_of(frames, self.stretches)
            with trainer.precision_plugin.test_step_context():
                self.explained += explain(
                    stage.backbone,
                    batch.rows([row]),
                    [said[0].text],
                    stretches=stretches,
                    say=partial(said_by, stage),
                )
            answered.ask_again()
            done[task] += 1


def said_by(stage: Any, batch: Batch) -> list[str]:
    """The best answer of a stage to each conversation of a batch, as in its test."""
    return [row.best for row in stage.answer(batch, stage.answer_by)[1]]


def _spread(module: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())
