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
from mmavlm.metrics import AnswerAccuracy, Compare, UnparsedRate
from mmavlm.stages.answering import AnswerBy, answer_rows, check_answer_by
from mmavlm.stages.base import EVALUATED, Stage
from mmavlm.stages.optim import OptimizerRecipe
from mmavlm.stages.predictions import Prediction, PredictionLog

log = logging.getLogger(__name__)


class FineTune(Stage):
    """Train on answers, evaluate by generation, by ranking what there is to choose from, or both.

    `classes` maps a task to its class names; `tasks_with_options` have questions that bring options
    of their own; what is neither has open answers, which are always generated. Accuracy
    is reported for each task an item is of: top-1/top-5 of the beams (`<task>/top1`), of the
    ranked candidates (`<task>/rank_top1`), and by majority over a video's items. `compare` says
    what of a generated answer must be the truth: the whole of it, or its first word; one rule for
    all, or by task or set, the whole where none is named. A generated answer to a question with
    options counts as the option it names; `<task>/unparsed` is the share that names none.

    Raises:
        ConfigError: if the backbone has no LLM, more answers are asked for than beams, or a
            comparison, what it is for, or the way to answer is unknown.
    """

    def __init__(
        self,
        backbone: VideoLanguageModel,
        optimizer: OptimizerRecipe,
        *,
        tasks: Sequence[str],
        classes: Mapping[str, Sequence[str]] | None = None,
        tasks_with_options: Sequence[str] = (),
        text_weight: float = 1.0,
        align_weight: float = 1.0,
        num_beams: int = 5,
        num_answers: int = 5,
        min_new_tokens: int = 1,
        max_new_tokens: int = 30,
        compare: Compare | Mapping[str, Compare] = "whole",
        answer_by: AnswerBy = "both",
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
        self.tasks_with_options = frozenset(tasks_with_options)
        self.generate_in_validation = generate_in_validation
        self.answer_by = check_answer_by(answer_by, generate_in_validation=generate_in_validation)
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
        self.unparsed = torch.nn.ModuleDict(
            {_key(split, task, "generated"): UnparsedRate() for split in EVALUATED
             for task in tasks_with_options}
        )  # fmt: skip
        self.predictions = PredictionLog()

    def compare_of(self, task: str) -> Compare:
        """What of a task's generated answers must be the truth; all, of an option."""
        if task in self.tasks_with_options:
            return "whole"
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
        self, batch: VideoTextBatch, by: AnswerBy = "both"
    ) -> tuple[Tensor, list[Prediction]]:
        """Answers to a batch: the loss of the true ones, and a prediction for each row."""
        llm = self.backbone.llm
        assert llm is not None  # checked at construction
        tokens = self.backbone.video_tokens(self.backbone.remember(self.backbone.watch(batch)))
        loss = llm.loss(tokens, batch.prompt, batch.target)
        settings = {**self.answering, "max_new_tokens": self.max_new_tokens}
        answered = answer_rows(llm, tokens, batch, self.classes, by, **settings)
        return loss, [Prediction.of(batch, i, answers) for i, answers in enumerate(answered)]

    def _evaluate(self, batch: VideoTextBatch, split: str) -> None:
        if self._skip(batch):
            return
        for name, rows in self._by_set(batch):
            loss, predictions = self.answer(rows, self._answers_by(split))
            self._log_losses(split, {"text": loss}, rows)
            self._note_set_loss(split, name, loss, len(rows))
            self._note(split, predictions)
            if split == "test":
                self.predictions.extend(predictions, rows)

    def _note(self, split: str, predictions: Sequence[Prediction]) -> None:
        """Count right, wrong and unparsed answers."""
        for row in predictions:
            for kind, answers in (("generated", row.answers), ("ranked", row.ranking)):
                if answers:
                    texts = [answer.text for answer in answers]
                    self._metric(_key(split, row.task, kind)).update(
                        [row.item_id], [row.video_id], [texts], [row.truth]
                    )
            if row.said:
                unparsed = self.unparsed[_key(split, row.task, "generated")]
                cast(UnparsedRate, unparsed).update([row.item_id], [row.answers[0].text])

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
        self._log_unparsed(split)
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
        """How a task is answered: by generation, by ranking, or both."""
        by = self._answers_by(split)
        if task not in self.classes and task not in self.tasks_with_options:
            return ["generated"]
        # Beside questions with options a task may have open ones.
        generates = by != "rank" or task not in self.classes
        return [*(["generated"] if generates else []), *(["ranked"] if by != "generate" else [])]

    def _log_unparsed(self, split: str) -> None:
        for key, metric in self.unparsed.items():
            of_split, task, _ = key.split(_SEPARATOR)
            if of_split == split:
                rate = cast(UnparsedRate, metric)
                shares = rate.compute()  # on every rank
                rate.reset()
                self._log_metrics({f"{split}/{task}/{n}": v for n, v in shares.items()})

    def _answers_by(self, split: str) -> AnswerBy:
        return "rank" if split == "val" and not self.generate_in_validation else self.answer_by

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
