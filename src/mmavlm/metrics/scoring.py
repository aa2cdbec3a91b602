"""The scores of answers as they come: each task by its rule, over all processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from torch import nn

from mmavlm.metrics.accuracy import AnswerAccuracy
from mmavlm.metrics.caption_scores import CaptionScores
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.rescoring import Kind, named_scores
from mmavlm.metrics.rules import Rule
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
        """Take what was answered to some items."""
        for row in predictions:
            if row.said:
                unparsed = self._metric_at(row.task, "said")
                cast(UnparsedRate, unparsed).update([row.item_id], [row.answers[0].text])
            for kind, answers in (("generated", row.answers), ("ranked", row.ranking)):
                if not answers:
                    continue
                metric = self._metric_at(row.task, cast(Kind, kind))
                texts = [answer.text for answer in answers]
                if isinstance(metric, CaptionScores):
                    metric.update([row.item_id], [row.video_id], texts[:1], [row.references])
                elif isinstance(metric, AnswerAccuracy):
                    given = ([row.item_id], [row.video_id], [texts], [row.truth])
                    metric.update(*given, [row.references], [row.prompt])

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
