"""Stage 2: answer prompts, L = λ_multi·L_multi + λ_text·L_text (MMA, section 3.3)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar, cast

import lightning as L
import torch
from torch import Tensor

from mmavlm.core.batch import Batch
from mmavlm.core.contrast import Contrast
from mmavlm.core.errors import ConfigError
from mmavlm.core.generation import Generation
from mmavlm.core.settings import at_least, whole_at_least
from mmavlm.metrics import Kind, Prediction, Rule, TaskScores, check_rule, left_out
from mmavlm.model.alignment import MultiLevelAlignment
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.stages.answered_before import begun_log
from mmavlm.stages.answering import AnswerBy, answer_batch, check_answer_by, longest_answer
from mmavlm.stages.base import EVALUATED, Stage
from mmavlm.stages.group_dro import GroupDRO
from mmavlm.stages.optim import OptimizerRecipe
from mmavlm.stages.predictions import PredictionLog

log = logging.getLogger(__name__)


class FineTune(Stage):
    """Train on answers, evaluate by generation, by ranking what there is to choose from, or both.

    `classes` maps a task to its class names; `tasks_with_options` have questions that bring options
    of their own; what is neither has open answers, which are always generated. Accuracy
    is reported for each task an item is of: top-1/top-5 of the beams (`<task>/top1`), of the
    ranked candidates (`<task>/rank_top1`), and by majority over a video's items. With
    `fit_classes` the longest answer grows to the longest class name. `compare` says how
    a generated answer is scored: the whole of it must be right, or its first word, or as a caption
    beside all references (`<task>/cider`); one rule for all, or by task or set, the whole where
    none is named. A generated answer to a question with options counts as the option it names;
    `<task>/unparsed` is the share that names none. With `contrast` answers are decoded against
    another view, in validation and test; the loss is that of what is shown. `prompt_suffix` stands
    behind each question there, a control: what does it change to ask for yes, or for care? With
    `group_loss` the answers' loss in training is weighed by groups of items (`GroupDRO`).

    Raises:
        ConfigError: if the backbone has no LLM, a number is none or too small, more answers are
            asked for than beams, captions are to be chosen by accuracy, a comparison, what it is
            for, or the way to answer is unknown, or texts may need more positions than the LLM has.
    """

    number: ClassVar[int | None] = 2
    predictions: PredictionLog

    def __init__(
        self,
        backbone: VideoLanguageModel,
        optimizer: OptimizerRecipe,
        *,
        tasks: Sequence[str],
        classes: Mapping[str, Sequence[str]] | None = None,
        tasks_with_options: Sequence[str] = (),
        text_weight: float = 1.0,
        align_weight: float | Mapping[str, float] = 1.0,
        num_beams: int = 5,
        num_answers: int = 5,
        min_new_tokens: int = 1,
        max_new_tokens: int = 30,
        fit_classes: bool = True,
        repetition_penalty: float = 1.0,
        penalize_bos: bool = False,
        length_penalty: float = 1.0,
        temperature: float = 0.0,
        top_p: float = 1.0,
        prompt_suffix: str = "",
        contrast: Contrast | None = None,
        group_loss: GroupDRO | None = None,
        compare: Rule | Mapping[str, Rule] = "whole",
        answer_by: AnswerBy = "both",
        rank_with_eos: bool = True,
        generate_in_validation: bool = True,
        monitor: str = "val/accuracy",
        run: dict[str, Any] | None = None,
        sets: Sequence[str] = (),
    ) -> None:
        super().__init__(backbone, optimizer, run, sets)
        if backbone.llm is None:
            raise ConfigError("stage 2 needs an LLM; choose llm=… or run stage=semantic_alignment")
        counts = {"num_beams": num_beams, "num_answers": num_answers}
        whole_at_least("stage", 1, **counts, max_new_tokens=max_new_tokens)
        whole_at_least("stage", 0, min_new_tokens=min_new_tokens)
        at_least("stage", 0, text_weight=text_weight)
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
        self.align_weights = level_weights(align_weight, backbone.alignment)
        self.rank_with_eos = rank_with_eos
        self.contrast = contrast
        self.prompt_suffix = prompt_suffix
        self.group_loss = group_loss
        self.rules = self._rules(compare, tasks)
        if "caption" in self.rules.values() and (problem := left_out()):
            log.warning("%s", problem)
        self.generation = Generation(
            **counts,
            min_new_tokens=min_new_tokens,
            max_new_tokens=longest_answer(
                backbone.llm, self.classes, max_new_tokens, fit=fit_classes
            ),
            repetition_penalty=repetition_penalty,
            penalize_bos=penalize_bos,
            length_penalty=length_penalty,
            temperature=temperature,
            top_p=top_p,
        )
        self.run["max_new_tokens"] = self.generation.max_new_tokens
        self.lengths = backbone.check_lengths(self.generation.max_new_tokens)
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

    def configure_callbacks(self) -> list[L.Callback]:
        """What weighs groups, so that checkpoints keep its weights."""
        return [] if self.group_loss is None else [self.group_loss]

    def setup(self, stage: str) -> None:
        """Also refuse films of so many frames that their tokens do not fit into the LLM.

        A test begins with a log of its own, or goes on with that of one that was killed.

        Raises:
            ConfigError: naming both numbers.
        """
        super().setup(stage)
        if stage == "test":
            self.predictions = begun_log(self.keeping, self)
        if (frames := self.num_frames()) is not None:
            self.lengths = self.backbone.check_lengths(self.generation.max_new_tokens, frames)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The answer's cross-entropy, the loss of each aligned level, their weighted sum."""
        grouped = self.group_loss
        terms = self.backbone(
            batch, align=any(self.align_weights.values()), by_row=grouped is not None
        )
        if grouped is not None:
            terms |= grouped(terms["text"], batch)
        return {**terms, "loss": self._with_levels(self.text_weight * terms["text"], terms)}

    def _with_levels(self, total: Tensor, terms: Mapping[str, Tensor]) -> Tensor:
        """A weighted sum with the losses of the aligned levels that are among the terms."""
        for level, weight in self.align_weights.items():
            if (loss := terms.get(f"align_{level}")) is not None:
                total = total + weight * loss
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[Prediction]]:
        """Answer the validation split: what is answered to the batch, as `answered`."""
        return {"answered": self._evaluate(batch, "val")}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Answer the test split, keeping every prediction; what was answered before is taken."""
        for told in self.predictions.begin(batch_idx):
            rows = iter(told.rows)
            for name, loss, count in told.losses:
                of_loss = torch.tensor(loss, device=self.device)
                self._take("test", name, of_loss, list(islice(rows, count)))
        self._evaluate(batch, "test")

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Write what was answered, when callbacks have made of it what they make."""
        self.predictions.close()

    def on_validation_epoch_end(self) -> None:
        """Log scores over the whole validation split."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log scores over the whole test split."""
        self._log_scores("test")

    def answer(self, batch: Batch, by: AnswerBy = "both") -> tuple[Tensor, list[Prediction]]:
        """Answers to a batch: the loss of the true ones, and a prediction for each row."""
        llm = self.backbone.llm
        assert llm is not None  # checked at construction
        if self.prompt_suffix:
            talks = [talk.with_suffix(self.prompt_suffix) for talk in batch.conversations]
            batch = replace(batch, conversations=talks)
        media, against = self.backbone.seen(batch, self.contrast)
        loss = self.backbone.answer_loss(batch, media)
        answered = answer_batch(
            llm,
            media,
            batch,
            self.classes,
            by,
            self.generation,
            rank_with_eos=self.rank_with_eos,
            against=against,
        )
        return loss, [
            Prediction.of(
                batch,
                i,
                row.generated,
                row.ranked,
                compare=self.rules.get(batch.task[i], "whole"),
                said=row.said,
            )
            for i, row in enumerate(answered)
        ]

    def _evaluate(self, batch: Batch, split: str) -> list[Prediction]:
        answered: list[Prediction] = []
        if self._skip(batch):
            return answered
        for name, rows in self._by_set(batch):
            loss, predictions = self.answer(rows, self._answers_by(split))
            self._take(split, name, loss, predictions)
            if split == "test":
                self.predictions.extend(predictions, rows, float(loss), name)
            answered += predictions
        return answered

    def _take(
        self, split: str, of_set: str, loss: Tensor, predictions: Sequence[Prediction]
    ) -> None:
        """Count what was answered to rows of a set."""
        self._log_losses(split, {"text": loss}, predictions)
        self._note_set_loss(split, of_set, loss, len(predictions))
        self._scores(split).update(predictions)

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
        """The rule of each task; an option is compared as a whole."""
        if isinstance(compare, str):
            rule = check_rule(compare, "stage.compare")
            return {task: "whole" if task in self.tasks_with_options else rule for task in tasks}
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
        """How a task is answered: by generation, by ranking, or both; and whether it is parsed."""
        by, has_options = self._answers_by(split), task in self.tasks_with_options
        if task not in self.classes and not has_options:
            return ["generated"]
        # Beside questions with options a task may have open ones.
        generates = by != "rank" or task not in self.classes
        given: dict[Kind, bool] = {
            "generated": generates,
            "ranked": by != "generate",
            "said": generates and has_options,
        }
        return [kind for kind, there in given.items() if there]

    def _answers_by(self, split: str) -> AnswerBy:
        return "rank" if split == "val" and not self.generate_in_validation else self.answer_by


def level_weights(
    weight: float | Mapping[str, float], alignment: MultiLevelAlignment | None
) -> dict[str, float]:
    """The weight of each aligned level: one for all, or one by name.

    Raises:
        ConfigError: if a weight is no number of at least 0, or names do not fit the levels.
    """
    levels = () if alignment is None else alignment.levels
    if not isinstance(weight, Mapping):
        at_least("stage", 0, align_weight=weight)
        return dict.fromkeys(levels, weight)
    at_least("stage.align_weight", 0, **weight)
    if alignment is not None and set(weight) != set(levels):
        raise ConfigError(
            f"stage.align_weight names {sorted(weight)}, but the alignment has the levels "
            f"{sorted(levels)}; give one number for all, or one for each level"
        )
    return dict(weight)
