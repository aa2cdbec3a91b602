"""Stage 1: align videos with their texts, without an LLM (MMA, section 3.3)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from mmavlm.core.batch import Batch
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.metrics import RetrievalRecall
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.stages.base import EVALUATED, Stage, distributed
from mmavlm.stages.optim import OptimizerRecipe

log = logging.getLogger(__name__)

# The rows of a set, and level → features of unit norm of their films and texts, each (B,E).
Compared = tuple[Batch, dict[str, tuple[Tensor, Tensor]]]
JOINT = "joint"  # both levels' features side by side: their similarities averaged


class SemanticAlignment(Stage):
    """Train Q-Former and text encoder on L_multi = Σ_l L_l; report retrieval recall by level.

    With `grad_cache_chunk` a batch, whose rows are each other's negatives, may be as large as its
    encoded frames allow: so many rows at a time hold activations, at the price of a second forward
    pass behind the encoder, and the gradient is that of the whole batch.

    Raises:
        ConfigError: if the backbone has no alignment, or was given an LLM it would not use, or
            `grad_cache_chunk` is below 1.
    """

    number = 1

    def __init__(
        self,
        backbone: VideoLanguageModel,
        optimizer: OptimizerRecipe,
        *,
        grad_cache_chunk: int | None = None,
        monitor: str = "val/recall",
        run: dict[str, Any] | None = None,
        sets: Sequence[str] = (),
    ) -> None:
        super().__init__(backbone, optimizer, run, sets)
        if backbone.alignment is None:
            raise ConfigError("stage 1 needs alignment; choose alignment=info_nce or another")
        if backbone.llm is not None:
            raise ConfigError("stage 1 never uses an LLM; build the backbone with llm=null")
        if grad_cache_chunk is not None and grad_cache_chunk < 1:
            raise ConfigError(
                f"stage.grad_cache_chunk is {grad_cache_chunk}; give the number of rows that hold "
                "activations at a time, 1 or more, or null for the whole batch"
            )
        self.grad_cache_chunk = grad_cache_chunk
        self.monitor = monitor
        self._told_of_one = False
        self.levels = [*backbone.alignment.levels, JOINT]
        self.recall = torch.nn.ModuleDict(
            {
                _key(split, name, level): RetrievalRecall()
                for split in EVALUATED
                for name in self.sets or ("",)
                for level in self.levels
            }
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of each level and L_multi.

        Raises:
            DataError: naming an item that shows anything but one film.
        """
        for row, item_id in enumerate(batch.item_id):
            if batch.film_of(row) is None:
                raise DataError(
                    f"item {item_id} shows {len(batch.conversations[row].views)} media, and "
                    "stage 1 aligns the text of an item with one film; take such items out, or "
                    "train on them in stage 2"
                )
        if self.training and len(batch) == 1 and not (self._told_of_one or distributed()):
            self._told_of_one = True
            log.warning(
                "item %s is a batch of its own: stage 1 compares the rows of a batch with each "
                "other, so nothing can be learned from it; raise data.batch_size, or give more "
                "items",
                batch.item_id[0],
            )
        terms = self.backbone(batch, answer=False, chunk=self.grad_cache_chunk)
        return {**terms, "loss": torch.stack(list(terms.values())).sum()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Compared]]:
        """Loss and retrieval features of the validation split, these as `compared`."""
        return {"compared": self._evaluate(batch, "val")}

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Compared]]:
        """Loss and retrieval features of the test split, these as `compared`."""
        return {"compared": self._evaluate(batch, "test")}

    def on_validation_epoch_end(self) -> None:
        """Log recall over the whole validation split."""
        self._log_recall("val")

    def on_test_epoch_end(self) -> None:
        """Log recall over the whole test split."""
        self._log_recall("test")

    def _evaluate(self, batch: Batch, split: str) -> list[Compared]:
        compared: list[Compared] = []
        if self._skip(batch):
            return compared
        for name, rows in self._by_set(batch):
            losses = self.losses(rows)
            self._log_losses(split, losses, rows)
            self._note_set_loss(split, name, losses["loss"], len(rows))
            features = self.backbone.aligned_features(rows, self.grad_cache_chunk)
            videos, texts = zip(*features.values(), strict=True)
            features[JOINT] = torch.cat(videos, dim=1), torch.cat(texts, dim=1)
            for level, (video, text) in features.items():
                metric = self._metric(split, name, level)
                metric.update(video, text, rows.item_id, rows.target)
            compared.append((rows, features))
        return compared

    def _log_recall(self, split: str) -> None:
        """Log recall by set and level, and the mean over sets as `<split>/recall`."""
        means = []
        for name in self.sets or ("",):
            prefix = f"{split}/{name}" if name else split
            for level in self.levels:
                metric = self._metric(split, name, level)
                recall = metric.compute()
                metric.reset()
                self._log_metrics({f"{prefix}/{level}/{key}": v for key, v in recall.items()})
                if level == JOINT:
                    means.append((recall["v2t_r1"] + recall["t2v_r1"]) / 2)
                    if name:
                        self._log_metrics({f"{prefix}/recall": means[-1]})
        self._log_metrics({f"{split}/recall": sum(means) / len(means)}, prog_bar=True)
        self._log_set_losses(split, "loss")

    def _metric(self, split: str, name: str, level: str) -> RetrievalRecall:
        return cast(RetrievalRecall, self.recall[_key(split, name, level)])


def _key(split: str, name: str, level: str) -> str:
    """A name for a metric; `name` is that of a set, "" where sets are not mixed."""
    return "_".join(part for part in (split, name, level) if part)
