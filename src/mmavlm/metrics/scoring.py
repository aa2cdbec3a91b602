"""The scores of answers as they come: each task by its rule, over all processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from torch import nn

from mmavlm.metrics.accuracy import AnswerAccuracy
from mmavlm.metrics.caption_scores import CaptionScores
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.rescoring import named_scores
from mmavlm.metrics.rules import Rule
from mmavlm.metrics.taken import Kind
from mmavlm.metrics.unparsed import UnparsedRate

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

        Named as `named_scores` says.
        """
        found = {}
        for place, metric in zip(self.places, self.metrics, strict=True):
            found[place] = cast(Metric, metric).compute()  # on every process
            cast(Metric, metric).reset()
        return named_scores(found, self.sets)

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
