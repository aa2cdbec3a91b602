"""Watched films scored by one of the tasks there are for them, and by which setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmavlm.core.metrics_file import finite
from mmavlm.core.speaking import SpeakingRule
from mmavlm.core.streams import RELEVANCE
from mmavlm.metrics.duet.choosing import GIVEN, Chosen, check_apart
from mmavlm.metrics.duet.films import Paired, paired, with_events
from mmavlm.metrics.duet.grounding import Cut, choose_cut, grounding_scores, grounding_statistics
from mmavlm.metrics.duet.highlights import (
    choose_window,
    highlight_scores,
    highlight_statistics,
)
from mmavlm.metrics.duet.speaking import (
    TOLERANCE_S,
    choose_rule,
    speaking_scores,
    speaking_statistics,
)
from mmavlm.metrics.duet.watched import EventTruth, HighlightTruth, Truth, Watched

SPEAKING, GROUNDING, HIGHLIGHTS = "speaking", "grounding", "highlights"


@dataclass(frozen=True)
class Seen:
    """The films of a split as they were watched, and what is true of them, of one kind."""

    watched: Sequence[Watched]
    truths: Sequence[Any]


@dataclass(frozen=True)
class Result:
    """The numbers of a task by name, the questions they are over, and the setting they are of."""

    task: str
    values: dict[str, float]
    pairs: Paired[Any]
    chosen: Chosen[Any] | None = None

    @property
    def scores(self) -> dict[str, float]:
        """The numbers by their names in metrics.json, without the split."""
        return {f"{self.task}/{name}": value for name, value in self.values.items()}

    @property
    def summary(self) -> dict[str, Any]:
        """All of it as JSON: the choice, the questions that do not count as others do, scores."""
        return {
            "task": self.task,
            "chosen": None if self.chosen is None else asdict(self.chosen),
            "missing": self.pairs.missing,
            "unasked": list(self.pairs.unasked),
            "eventless": list(self.pairs.eventless),
            "scores": finite(self.scores),
        }

    @property
    def how_chosen(self) -> str:
        """The setting in words, and which split chose it; "" where there is none."""
        chosen = self.chosen
        if chosen is None:
            return ""
        shown = _in_words(chosen.setting)
        if chosen.split == GIVEN:
            return f"{shown}, as given"
        best = f"{chosen.by} {chosen.value:.3f} over {chosen.questions} questions"
        return f"{shown}, chosen on {chosen.split}: {best}"


def _in_words(setting: SpeakingRule | Cut | int) -> str:
    if isinstance(setting, SpeakingRule):
        return f"speaks {setting.in_words}"
    values = asdict(setting) if isinstance(setting, Cut) else {"window": setting}
    return " ".join(f"{name}={value}" for name, value in values.items())


def found_spans(both: Paired[EventTruth], chosen: Chosen[Cut], head: str = RELEVANCE) -> Result:
    """`grounding_scores` by a chosen cut.

    Raises:
        DataError: if a film has no scores of the head.
    """
    statistics = grounding_statistics(both.watched, both.truths, chosen.setting, head)
    return Result(GROUNDING, grounding_scores(both.taken(statistics)), both, chosen)


def found_highlights(
    both: Paired[HighlightTruth], chosen: Chosen[int], head: str = RELEVANCE
) -> Result:
    """`highlight_scores` by a chosen window.

    Raises:
        DataError: if a film has no scores of the head.
    """
    statistics = highlight_statistics(both.watched, both.truths, chosen.setting, head)
    return Result(HIGHLIGHTS, highlight_scores(both.taken(statistics)), both, chosen)


def spoken(
    both: Paired[EventTruth],
    chosen: Chosen[SpeakingRule] | None,
    tolerance_s: float = TOLERANCE_S,
) -> Result:
    """`speaking_scores` by a chosen rule, or of the replies.

    Raises:
        DataError: if a head of the rule has no scores.
    """
    rule = None if chosen is None else chosen.setting
    statistics = speaking_statistics(both.watched, both.truths, rule, tolerance_s)
    return Result(SPEAKING, speaking_scores(both.taken(statistics)), both, chosen)


def task_of(name: str, truths: Sequence[Truth]) -> str:
    """By which task a set is scored whose items are of the task `name`.

    Ratings of clips are highlights, searches spans, and all else is to be said in time.
    """
    if any(isinstance(truth, HighlightTruth) for truth in truths):
        return HIGHLIGHTS
    return GROUNDING if name.rpartition("/")[2] == GROUNDING else SPEAKING


def scored(task: str, tested: Seen, validated: Seen) -> Result:
    """The result of a task on tested films, by the setting that is best on validated ones.

    Raises:
        DataError: if there is nothing to choose or to score, or a film is in both splits.
    """
    check_apart(*([truth.video_id for truth in seen.truths] for seen in (validated, tested)))
    both = paired(tested.watched, tested.truths)
    films, truths = validated.watched, validated.truths
    if task == HIGHLIGHTS:
        return found_highlights(both, choose_window(films, truths, split="val"))
    if task == GROUNDING:
        return found_spans(with_events(both), choose_cut(films, truths, split="val"))
    return spoken(both, choose_rule(films, truths, split="val"))
