"""The scores of watched films as metrics with synced state; their functions are beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mmavlm.core.speaking import SpeakingRule
from mmavlm.metrics.duet.answers_in_span import (
    UNJUDGED,
    ToJudge,
    in_span_scores,
    in_span_statistics,
)
from mmavlm.metrics.duet.choosing import Chosen
from mmavlm.metrics.duet.dense_captions import COLUMNS, caption_scores, caption_statistics
from mmavlm.metrics.duet.films import STATISTICS, Taken, rows_of
from mmavlm.metrics.duet.grounding import (
    HEAD,
    KINDS,
    Cut,
    grounding_scores,
    grounding_statistics,
)
from mmavlm.metrics.duet.highlights import BYS, highlight_scores, highlight_statistics
from mmavlm.metrics.duet.speaking import (
    EVERY_S,
    OWN,
    TOLERANCE_S,
    speaking_scores,
    speaking_statistics,
)
from mmavlm.metrics.duet.watched import EventTruth, HighlightTruth, Watched
from mmavlm.metrics.row_metric import RowMetric

Films = Sequence[Watched | None]  # None is a question that was not watched


class FilmMetric(RowMetric):
    """A metric of questions about films, to each of which belong some statistics.

    `compute` gives floats by name, with `count` questions, of which `missing` were not watched and
    count as wrong. A question seen twice counts once.
    """

    def __init__(self, statistics: int, **kwargs: Any) -> None:
        super().__init__(STATISTICS + statistics, **kwargs)

    def take(
        self,
        watched: Films,
        truths: Sequence[EventTruth] | Sequence[HighlightTruth],
        statistics: Tensor,
    ) -> None:
        """Keep what n questions bring, (n,S)."""
        self.rows.append(rows_of(watched, truths, statistics).to(self.device))

    def taken(self) -> Taken:
        """What all questions brought."""
        return Taken.of_rows(self.all_rows().cpu())


class Grounding(FilmMetric):
    """`grounding_scores` for one chosen cut."""

    def __init__(self, chosen: Chosen[Cut], head: str = HEAD, **kwargs: Any) -> None:
        super().__init__(len(KINDS), **kwargs)
        self.chosen = chosen
        self.head = head

    def update(self, watched: Films, truths: Sequence[EventTruth]) -> None:
        """Take n questions.

        Raises:
            DataError: if a film has no scores of the head.
        """
        cut = self.chosen.setting
        self.take(watched, truths, grounding_statistics(watched, truths, cut, self.head))

    def compute(self) -> dict[str, float]:
        """Scores, bounds and counts by name."""
        return grounding_scores(self.taken())


class Highlights(FilmMetric):
    """`highlight_scores` for one chosen window."""

    def __init__(self, chosen: Chosen[int], head: str = HEAD, **kwargs: Any) -> None:
        super().__init__(len(BYS), **kwargs)
        self.chosen = chosen
        self.head = head

    def update(self, watched: Films, truths: Sequence[HighlightTruth]) -> None:
        """Take n questions.

        Raises:
            DataError: if a film has no scores of the head.
        """
        window = self.chosen.setting
        self.take(watched, truths, highlight_statistics(watched, truths, window, self.head))

    def compute(self) -> dict[str, float]:
        """Scores, bounds and counts by name."""
        return highlight_scores(self.taken())


class DenseCaptions(FilmMetric):
    """`caption_scores` of what was told of films; Java is started once an update."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(len(COLUMNS), **kwargs)

    def update(self, watched: Films, truths: Sequence[EventTruth]) -> None:
        """Take n questions."""
        self.take(watched, truths, caption_statistics(watched, truths))

    def compute(self) -> dict[str, float]:
        """Scores, bounds and counts by name."""
        return caption_scores(self.taken())


class Speaking(FilmMetric):
    """`speaking_scores` of replies or, given a chosen rule, of what it would say by the scores."""

    def __init__(
        self,
        chosen: Chosen[SpeakingRule] | None = None,
        tolerance_s: float = TOLERANCE_S,
        every_s: Sequence[float] = EVERY_S,
        **kwargs: Any,
    ) -> None:
        super().__init__(OWN + 2 * len(every_s), **kwargs)
        self.chosen = chosen
        self.tolerance_s = tolerance_s
        self.every_s = tuple(every_s)

    def update(self, watched: Films, truths: Sequence[EventTruth]) -> None:
        """Take n questions.

        Raises:
            DataError: if a head of the rule has no scores.
        """
        rule = None if self.chosen is None else self.chosen.setting
        told = speaking_statistics(watched, truths, rule, self.tolerance_s, self.every_s)
        self.take(watched, truths, told)

    def compute(self) -> dict[str, float]:
        """Scores, bounds and counts by name."""
        return speaking_scores(self.taken(), self.every_s)


class InSpanScore(FilmMetric):
    """`in_span_scores` of answers and a judge's verdicts."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(UNJUDGED + 1, **kwargs)

    def update(
        self,
        watched: Films,
        truths: Sequence[EventTruth],
        verdicts: Mapping[ToJudge, float | None],
    ) -> None:
        """Take n questions, and the score of all that is `to_judge`, None if there is none."""
        self.take(watched, truths, in_span_statistics(watched, truths, verdicts))

    def compute(self) -> dict[str, float]:
        """Scores, bounds and counts by name."""
        return in_span_scores(self.taken())
