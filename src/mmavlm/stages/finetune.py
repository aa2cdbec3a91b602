"""Stage 2: answer prompts, L = λ_multi·L_multi + λ_text·L_text (MMA, section 3.3)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from mmavlm.backbone import VideoLanguageModel
from mmavlm.batch import VideoTextBatch
from mmavlm.errors import ConfigError
from mmavlm.interfaces import Answer
from mmavlm.metrics import AnswerAccuracy, Compare
from mmavlm.stages.base import EVALUATED, Stage
from mmavlm.stages.optim import OptimizerRecipe
from mmavlm.stages.predictions import Prediction, PredictionLog

log = logging.getLogger(__name__)


class FineTune(Stage):
    """Train on answers, evaluate by generation and, where a task has classes, by ranking them.

    `classes` maps a task to its class names; tasks without an entry have open answers. Accuracy
    is reported for each task an item is of: top-1/top-5 of the beams (`<task>/top1`), of the
    ranked classes (`<task>/rank_top1`), and by majority over a video's items. `compare` says what
    of a generated answer must be the truth: the whole of it, or its first word; one rule for all,
    or by task or set, the whole where none is named.

    Raises:
        ConfigError: if the backbone has no LLM, more answers are asked for than beams, or a
            comparison or what it is for is unknown.
    """

    def __init__(
        self,
        backbone: VideoLanguageModel,
        optimizer: OptimizerRecipe,
        *,
        tasks: Sequence[str],
        classes: Mapping[str, Sequence[str]] | None = None,
        text_weight: float = 1.0,
        align_weight: float = 1.0,
        num_beams: int = 5,
        num_answers: int = 5,
        min_new_tokens: int = 1,
        max_new_tokens: int = 30,
        compare: Compare | Mapping[str, Compare] = "whole",
        generate_in_validation: bool = True,
        monitor: str = "val/accuracy",
        run: dict[str, Any] | None = None,
        sets: Sequence[str] = (),
    ) -> None:
        super().__init__(backbone, optimizer, run, sets)
        if backbone.llm is None:
            raise ConfigError("stage 2 needs an LLM; choose llm=… or run stage=semantic_alignment")
        if num_answers > num_beams:
            raise ConfigError(
                f"stage.num_answers={num_answers} exceeds stage.num_beams={num_beams}; "
                "each answer is a beam"
            )
        self.classes = {task: list(names) for task, names in (classes or {}).items()}
        self.generate_in_validation = generate_in_validation
        self.text_weight = text_weight
        self.align_weight = align_weight
        self.answering = {
            "num_beams": num_beams,
            "num_answers": num_answers,
            "min_new_tokens": min_new_tokens,
        }
        self.compare = compare if isinstance(compare, str) else dict(compare)
        self._check_compare(tasks)
        self.max_new_tokens = self._fit_classes(max_new_tokens)
        self.run["max_new_tokens"] = self.max_new_tokens
        self.monitor = monitor
        self.accuracy = torch.nn.ModuleDict(
            {
                _key(split, task, kind): AnswerAccuracy(
                    compare=self.compare_of(task) if kind == "generated" else "whole"
                )
                for split in EVALUATED
                for task in tasks
                for kind in self._kinds(split, task)
            }
        )
        self.predictions = PredictionLog()

    def compare_of(self, task: str) -> Compare:
        """What of a task's generated answers must be the truth."""
        if isinstance(self.compare, str):
            return self.compare
        return self.compare.get(task, self.compare.get(self.set_of(task), "whole"))

    def losses(self, batch: VideoTextBatch) -> dict[str, Tensor]:
        """The answer's cross-entropy, the loss of each aligned level, their weighted sum."""
        terms = self.backbone(batch, align=self.align_weight > 0)
        aligned = [loss for name, loss in terms.items() if name != "text"]
        total = self.text_weight * terms["text"]
        if aligned:
            total = total + self.align_weight * torch.stack(aligned).sum()
        return {**terms, "loss": total}

    def validation_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Answer the validation split."""
        self._evaluate(batch, "val")

    def test_step(self, batch: VideoTextBatch, batch_idx: int) -> None:
        """Answer the test split, keeping every prediction."""
        self._evaluate(batch, "test")

    def on_test_start(self) -> None:
        """Forget the predictions of an earlier test."""
        self.predictions = PredictionLog()

    def on_validation_epoch_end(self) -> None:
        """Log accuracies over the whole validation split."""
        self._log_accuracy("val")

    def on_test_epoch_end(self) -> None:
        """Log accuracies over the whole test split."""
        self._log_accuracy("test")

    def answer(
        self, batch: VideoTextBatch, *, generate: bool = True
    ) -> tuple[Tensor, list[Prediction]]:
        """Answers to a batch: the loss of the true ones, and a prediction for each row."""
        llm = self.backbone.llm
        assert llm is not None  # checked at construction
        tokens = self.backbone.video_tokens(self.backbone.remember(self.backbone.watch(batch)))
        loss = llm.loss(tokens, batch.prompt, batch.target)
        generated: list[list[Answer]] = [[] for _ in batch.prompt]
        ranked: list[list[Answer]] = [[] for _ in batch.prompt]
        for task in dict.fromkeys(batch.task):
            rows = [i for i, other in enumerate(batch.task) if other == task]
            prompts = [batch.prompt[i] for i in rows]
            if generate or task not in self.classes:
                answers = llm.generate(
                    tokens[rows], prompts, max_new_tokens=self.max_new_tokens, **self.answering
                )
                _place(generated, rows, answers)
            if task in self.classes:
                scores = llm.rank(tokens[rows], prompts, self.classes[task])
                _place(ranked, rows, _sorted(self.classes[task], scores))
        return loss, [Prediction.of(batch, i, generated[i], ranked[i]) for i in range(len(batch))]

    def _evaluate(self, batch: VideoTextBatch, split: str) -> None:
        if self._skip(batch):
            return
        for name, rows in self._by_set(batch):
            loss, predictions = self.answer(rows, generate=self._generates(split))
            self._log_losses(split, {"text": loss}, rows)
            self._note_set_loss(split, name, loss, len(rows))
            self._note(split, predictions)
            if split == "test":
                self.predictions.extend(predictions, rows)

    def _note(self, split: str, predictions: Sequence[Prediction]) -> None:
        """Count right and wrong answers."""
        for row in predictions:
            for kind, answers in (("generated", row.answers), ("ranked", row.ranking)):
                if answers:
                    texts = [answer.text for answer in answers]
                    self._metric(_key(split, row.task, kind)).update(
                        [row.item_id], [row.video_id], [texts], [row.truth]
                    )

    def _log_accuracy(self, split: str) -> None:
        """Log each task's accuracies, and their mean over tasks as `<split>/accuracy`."""
        top1: dict[str, float] = {}
        for key in self.accuracy:
            metric = self._metric(key)
            of_split, task, kind = key.split(_SEPARATOR)
            if of_split != split:
                continue
            prefix = "rank_" if kind == "ranked" else ""
            values = metric.compute()  # on every rank, also one that saw no item of the task
            metric.reset()
            if not values["count"]:
                continue
            self._log_metrics({f"{split}/{task}/{prefix}{n}": v for n, v in values.items()})
            top1.setdefault(task, float(values["top1"]))  # generated comes first
        for name in self.sets:
            if of_set := [top1[task] for task in top1 if self.set_of(task) == name]:
                self._log_metrics({f"{split}/{name}/accuracy": sum(of_set) / len(of_set)})
        if top1:
            mean = sum(top1.values()) / len(top1)
            self._log_metrics({f"{split}/accuracy": mean}, prog_bar=True)
        self._log_set_losses(split, "text")

    def _check_compare(self, tasks: Sequence[str]) -> None:
        known = {*tasks, *self.sets}
        if not isinstance(self.compare, str) and (unknown := self.compare.keys() - known):
            raise ConfigError(
                f"stage.compare names {sorted(unknown)}, but there are {sorted(known)}"
            )

    def _metric(self, key: str) -> AnswerAccuracy:
        return cast(AnswerAccuracy, self.accuracy[key])

    def _kinds(self, split: str, task: str) -> list[str]:
        """How a task is answered: by generation, by ranking its classes, or both."""
        if task not in self.classes:
            return ["generated"]
        return ["generated", "ranked"] if self._generates(split) else ["ranked"]

    def _generates(self, split: str) -> bool:
        return split == "test" or self.generate_in_validation

    def _fit_classes(self, max_new_tokens: int) -> int:
        """At least as many new tokens as the longest class name takes."""
        llm = self.backbone.llm
        assert llm is not None  # checked at construction
        lengths = {
            name: llm.answer_length(name) for names in self.classes.values() for name in names
        }
        longest = max(lengths, key=lengths.__getitem__, default=None)
        if longest is None or lengths[longest] <= max_new_tokens:
            return max_new_tokens
        log.info(
            "stage.max_new_tokens raised from %d to %d: the class %r needs that many",
            max_new_tokens,
            lengths[longest],
            longest,
        )
        return lengths[longest]


_SEPARATOR = "|"


def _key(split: str, task: str, kind: str) -> str:
    """A name for a metric; ModuleDict forbids dots, which tasks may have."""
    return _SEPARATOR.join((split, task.replace(".", "_"), kind))


def _place(into: list[list[Answer]], rows: Sequence[int], answers: Sequence[list[Answer]]) -> None:
    for row, best_first in zip(rows, answers, strict=True):
        into[row] = best_first


def _sorted(candidates: Sequence[str], scores: Tensor) -> list[list[Answer]]:
    """Candidates by descending log-probability, for each row of scores (B,C)."""
    values, order = scores.sort(dim=1, descending=True)
    return [
        [Answer(candidates[c], value) for c, value in zip(row, row_values, strict=True)]
        for row, row_values in zip(order.tolist(), values.tolist(), strict=True)
    ]
