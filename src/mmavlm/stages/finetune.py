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
from mmavlm.metrics import Kind, Prediction, Rule, TaskScores, check_rule, left_out
from mmavlm.stages.base import EVALUATED, Stage
from mmavlm.stages.optim import OptimizerRecipe
from mmavlm.stages.predictions import PredictionLog

log = logging.getLogger(__name__)


class FineTune(Stage):
    """Train on answers, evaluate by generation and, where a task has classes, by ranking them.

    `classes` maps a task to its class names; tasks without an entry have open answers. Accuracy
    is reported for each task an item is of: top-1/top-5 of the beams (`<task>/top1`), of the
    ranked classes (`<task>/rank_top1`), and by majority over a video's items. `compare` says how a
    generated answer is scored: the whole of it must be right, or its first word, or as a caption
    beside all references (`<task>/cider`); one rule for all, or by task or set, the whole where
    none is named.

    Raises:
        ConfigError: if the backbone has no LLM, more answers are asked for than beams, a comparison
            or what it is for is unknown, or none of the tasks gives the `monitor`.
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
        compare: Rule | Mapping[str, Rule] = "whole",
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
        self.rules = self._rules(compare, tasks)
        if "caption" in self.rules.values() and (problem := left_out()):
            log.warning("%s", problem)
        self.max_new_tokens = self._fit_classes(max_new_tokens)
        self.run["max_new_tokens"] = self.max_new_tokens
        self.monitor = monitor
        if monitor == "val/accuracy" and {*self.rules.values()} == {"caption"}:
            raise ConfigError(
                "stage.monitor=val/accuracy, but captions have no accuracy; set "
                "stage.monitor=val/cider_plain"
            )
        self.scores = torch.nn.ModuleDict(
            {
                split: TaskScores(
                    self.rules, {task: self._kinds(split, task) for task in tasks}, self.sets
                )
                for split in EVALUATED
            }
        )
        self.predictions = PredictionLog()

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
        """Log scores over the whole validation split."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log scores over the whole test split."""
        self._log_scores("test")

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
        return loss, [
            Prediction.of(batch, i, generated[i], ranked[i], self.rules.get(task, "whole"))
            for i, task in enumerate(batch.task)
        ]

    def _evaluate(self, batch: VideoTextBatch, split: str) -> None:
        if self._skip(batch):
            return
        for name, rows in self._by_set(batch):
            loss, predictions = self.answer(rows, generate=self._generates(split))
            self._log_losses(split, {"text": loss}, rows)
            self._note_set_loss(split, name, loss, len(rows))
            self._scores(split).update(predictions)
            if split == "test":
                self.predictions.extend(predictions, rows)

    def _log_scores(self, split: str) -> None:
        """Log the scores of each task and over tasks, the latter in the progress bar."""
        scores = self._scores(split)
        if self.trainer.sanity_checking:  # what nobody sees is not worth starting Java for
            scores.reset()
        else:
            values = {f"{split}/{name}": value for name, value in scores.compute().items()}
            over_all = {name: value for name, value in values.items() if name.count("/") == 1}
            self._log_metrics({n: value for n, value in values.items() if n not in over_all})
            self._log_metrics(over_all, prog_bar=True)
        self._log_set_losses(split, "text")

    def _rules(self, compare: Rule | Mapping[str, Rule], tasks: Sequence[str]) -> dict[str, Rule]:
        """The rule of each task."""
        if isinstance(compare, str):
            return dict.fromkeys(tasks, check_rule(compare, "stage.compare"))
        known = {*tasks, *self.sets}
        if unknown := set(compare) - known:
            raise ConfigError(
                f"stage.compare names {sorted(unknown)}, but there are {sorted(known)}"
            )
        named = {name: check_rule(rule, f"stage.compare.{name}") for name, rule in compare.items()}
        return {task: named.get(task, named.get(self.set_of(task), "whole")) for task in tasks}

    def _scores(self, split: str) -> TaskScores:
        return cast(TaskScores, self.scores[split])

    def _kinds(self, split: str, task: str) -> list[Kind]:
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
