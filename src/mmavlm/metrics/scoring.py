"""The scores of predictions: each task by its rule, as answers come or from a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from torch import nn

from mmavlm.metrics.answers import AnswerAccuracy, Rule
from mmavlm.metrics.captions import CHOOSING, CaptionScores
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.unparsed import UnparsedRate

Kind = Literal["generated", "ranked", "said"]
Metric = AnswerAccuracy | CaptionScores | UnparsedRate


class TaskScores(nn.Module):
    """Scores of each task's generated answers, of its ranked classes, and of what names no option.

    `rules` says of each task how its generated answers are scored (rankings always whole), `kinds`
    in which ways it is answered; tasks of one of the `sets` are named `<set>/<task>`. Every process
    must have the same tasks.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        kinds: Mapping[str, Sequence[Kind]],
        sets: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.rules = dict(rules)
        self.sets = tuple(sets)
        self.places = [(task, kind) for task, of_task in kinds.items() for kind in of_task]
        # a list, since a ModuleDict forbids dots, which tasks may have
        self.metrics = nn.ModuleList(self._metric(task, kind) for task, kind in self.places)

    @classmethod
    def of(cls, predictions: Sequence[Prediction]) -> TaskScores:
        """The scores of predictions at hand, whose tasks have one rule each."""
        kinds: dict[str, dict[Kind, None]] = {}
        for row in predictions:
            given: dict[Kind, bool] = {
                "generated": bool(row.answers),
                "ranked": bool(row.ranking),
                "said": bool(row.said),
            }
            kinds.setdefault(row.task, {}).update({k: None for k, there in given.items() if there})
        rules = {row.task: row.compare for row in predictions}
        ordered = {task: sorted(of_task) for task, of_task in kinds.items()}  # generated first
        sets = dict.fromkeys(task.partition("/")[0] for task in rules if "/" in task)
        scores = cls(rules, ordered, list(sets))
        scores.update(predictions)
        return scores

    def update(self, predictions: Iterable[Prediction]) -> None:
        """Take what was answered to some items, all rows of a task at once."""
        by_task: dict[str, list[Prediction]] = defaultdict(list)
        for row in predictions:
            by_task[row.task].append(row)
        for task, rows in by_task.items():
            if said := [row for row in rows if row.said]:
                unparsed = cast(UnparsedRate, self._metric_at(task, "said"))
                unparsed.update(_of(said, "item_id"), [row.answers[0].text for row in said])
            for kind in ("generated", "ranked"):
                self._take(task, kind, rows)

    def _take(self, task: str, kind: Kind, rows: Sequence[Prediction]) -> None:
        answers = {"generated": "answers", "ranked": "ranking"}[kind]
        given = [row for row in rows if getattr(row, answers)]
        if not given:
            return
        metric = self._metric_at(task, kind)
        texts = [[answer.text for answer in getattr(row, answers)] for row in given]
        ids, references = (_of(given, "item_id"), _of(given, "video_id")), _of(given, "references")
        if isinstance(metric, CaptionScores):
            metric.update(*ids, [best_first[0] for best_first in texts], references)
        elif isinstance(metric, AnswerAccuracy):
            metric.update(*ids, texts, _of(given, "truth"), references, _of(given, "prompt"))

    def compute(self) -> dict[str, float]:
        """Scores by name, and afresh from here on.

        `<task>/<score>` of generated answers, `<task>/rank_<score>` of ranked classes,
        `<task>/unparsed` of answers to questions with options; over the
        tasks of a set, and over all, the mean `accuracy` (top-1, generated where there is both) and
        of captions `cider_plain`.
        """
        values: dict[str, float] = {}
        over_tasks: dict[str, dict[str, float]] = {"accuracy": {}, CHOOSING: {}}
        for (task, kind), metric in zip(self.places, self.metrics, strict=True):
            of_task = cast(Metric, metric).compute()  # on every process
            cast(Metric, metric).reset()
            if not of_task.get("count" if kind != "said" else "parsed_of"):
                continue
            prefix = "rank_" if kind == "ranked" else ""
            values |= {f"{task}/{prefix}{name}": value for name, value in of_task.items()}
            for name, score in (("accuracy", "top1"), (CHOOSING, CHOOSING)):
                if score in of_task:
                    over_tasks[name].setdefault(task, of_task[score])  # generated comes first
        for name, by_task in over_tasks.items():
            for of_set in ("", *self.sets):  # every task is of ""
                prefix = f"{of_set}/" if of_set else ""
                each = [value for task, value in by_task.items() if task.startswith(prefix)]
                if each:
                    values[f"{prefix}{name}"] = sum(each) / len(each)
        return values

    def reset(self) -> None:
        """Forget what was taken."""
        for metric in self.metrics:
            cast(Metric, metric).reset()

    def _metric_at(self, task: str, kind: Kind) -> nn.Module:
        return self.metrics[self.places.index((task, kind))]

    def _metric(self, task: str, kind: Kind) -> Metric:
        if kind == "said":
            return UnparsedRate()
        rule = self.rules[task] if kind == "generated" else "whole"
        return CaptionScores() if rule == "caption" else AnswerAccuracy(compare=rule)


def _of(rows: Sequence[Prediction], name: str) -> list[Any]:
    """One field of all rows."""
    return [getattr(row, name) for row in rows]
