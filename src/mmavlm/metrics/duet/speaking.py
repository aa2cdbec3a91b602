"""Whether a model speaks when something happens, and what a fixed rhythm would come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from mmavlm.metrics.duet.choosing import Chosen, best_of
from mmavlm.metrics.duet.films import FilmMetric, paired, scores_of
from mmavlm.metrics.duet.matching import delays_s, matches, repeats
from mmavlm.metrics.duet.watched import EventTruth, Watched
from mmavlm.metrics.resampling import mean

TOLERANCE_S = 1.0
EVERY_S = tuple(0.5 * step for step in range(1, 121))  # rhythms to compare with, up to a minute
SHARES = tuple(round(0.05 * step, 2) for step in range(1, 20))  # thresholds, a head
PAUSES_S = (0.0, 1.0, 2.0, 5.0, 10.0)
HEADS = ("informative",)

# Columns: matched, said, events; repeated replies, minutes; sum of delays, answered starts, starts.
MATCHED, SAID, EVENTS, REPEATED, MINUTES, DELAYS_S, ANSWERED, STARTS = range(8)
OWN = 8  # then matched and said of each rhythm


@dataclass(frozen=True)
class SpeakingRule:
    """Speak at a frame where the heads' scores sum to more than `threshold`.

    But for `pause_s` after each reply, stay silent.
    """

    threshold: float
    pause_s: float = 0.0
    heads: tuple[str, ...] = HEADS

    def times_s(self, film: Watched) -> list[float]:
        """When it speaks.

        Raises:
            DataError: if a head has no scores.
        """
        return self.times_of(total_score(film, self.heads), film)

    def times_of(self, total: Tensor, film: Watched) -> list[float]:
        """When it speaks, given the sum (T) of the heads' scores."""
        times: list[float] = []
        for frame in (total > self.threshold).nonzero().flatten().tolist():
            time_s = film.times_s[frame]
            if not times or time_s - times[-1] >= self.pause_s:
                times.append(time_s)
        return times


def total_score(film: Watched, heads: Sequence[str]) -> Tensor:
    """The sum (T) of the heads' scores.

    Raises:
        DataError: if a head has no scores.
    """
    return torch.stack([scores_of(film, head) for head in heads]).sum(dim=0)


def f1(sums: Tensor) -> Tensor:
    """2·matched / (said + events) of sums (…,3): the harmonic mean of precision and recall."""
    matched, said, events = sums.unbind(dim=-1)
    return 2 * matched / (said + events)


def precision(sums: Tensor) -> Tensor:
    """Matched / said of sums (…,2), 0 where nothing was said."""
    matched, said = sums.unbind(dim=-1)
    return matched / said.clamp(min=1)


class Speaking(FilmMetric):
    """F1 of speaking within `tolerance_s` of an event, and what else tells of a talker.

    Replies and events are matched one to one (`matches`), summed over films. `compute` gives
    floats: `speaking_precision`, `speaking_recall`, `speaking_f1`; `delay_s`, the mean time from
    an event's start to the first reply before the next event, over the share `answered` that has
    one; `duplicates`, the share of replies whose text was there before; `replies_per_minute`. All
    have 95 % bootstrap intervals over films (`_low`, `_high`). `constant_f1` is the F1 of speaking
    every `constant_every_s` seconds, the best of `every_s` for these very events, which no rule
    could know: a number is worth something above it only. A question that was not watched counts,
    with events and no reply: `missing` of `count`.

    With a `Chosen` rule it speaks where that does by the scores; else its replies count.
    """

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

    def update(self, watched: Sequence[Watched | None], truths: Sequence[EventTruth]) -> None:
        """Take n questions; None is one that was not watched.

        Raises:
            DataError: if a head of the rule has no scores.
        """
        rows = [self._row(film, truth) for film, truth in zip(watched, truths, strict=True)]
        columns = OWN + 2 * len(self.every_s)
        self.take(watched, truths, torch.tensor(rows, dtype=torch.float64).view(-1, columns))

    def compute(self) -> dict[str, float]:
        """Scores, bounds and counts by name."""
        taken = self.taken()
        values = {
            **taken.score("speaking_precision", precision, (MATCHED, SAID)),
            **taken.score("speaking_recall", mean, (MATCHED, EVENTS)),
            **taken.score("speaking_f1", f1, (MATCHED, SAID, EVENTS)),
            **taken.score("delay_s", mean, (DELAYS_S, ANSWERED)),
            **taken.score("answered", mean, (ANSWERED, STARTS)),
            **taken.score("replies_per_minute", mean, (SAID, MINUTES)),
        }
        if self.chosen is None:
            values |= taken.score("duplicates", mean, (REPEATED, SAID))
        sums = taken.statistics.sum(dim=0)
        matched, said = sums[OWN:].unflatten(0, (-1, 2)).unbind(dim=1)
        rhythms = f1(torch.stack([matched, said, sums[EVENTS].expand_as(said)], dim=1))
        best = int(rhythms.nan_to_num(-1.0).argmax())
        first = OWN + 2 * best
        values |= taken.score("constant_f1", f1, (first, first + 1, EVENTS))
        return values | {"constant_every_s": self.every_s[best]} | taken.counts

    def _row(self, film: Watched | None, truth: EventTruth) -> list[float]:
        events = truth.events
        times: list[float] = []
        duration_s = max(event.end_s for event in events)  # all that is known of one not watched
        if film is not None:
            rule = self.chosen
            times = [r.time_s for r in film.replies] if rule is None else rule.setting.times_s(film)
            duration_s = film.duration_s
        repeated = repeats([r.text for r in film.replies]) if film and self.chosen is None else 0
        delays = delays_s(events, times)
        starts = len({event.start_s for event in events})
        row = [len(matches(events, times, self.tolerance_s)), len(times), len(events), repeated,
               duration_s / 60 if film else 0.0, sum(delays), len(delays), starts]  # fmt: skip
        for every_s in self.every_s:
            rhythm = [every_s * beat for beat in range(1, math.floor(duration_s / every_s) + 1)]
            row += [len(matches(events, rhythm, self.tolerance_s)), len(rhythm)]
        return row


def choose_rule(
    watched: Sequence[Watched],
    truths: Sequence[EventTruth],
    *,
    split: str,
    heads: tuple[str, ...] = HEADS,
    thresholds: Sequence[float] | None = None,
    pauses_s: Sequence[float] = PAUSES_S,
    tolerance_s: float = TOLERANCE_S,
) -> Chosen[SpeakingRule]:
    """The rule with the largest F1 of speaking over the questions of a split.

    Without `thresholds` they are .05 to .95 times the number of heads.

    Raises:
        ConfigError: if it is the test split.
        DataError: if there is no question in common, or a head has no scores.
    """
    both = paired(watched, truths)
    grid = thresholds or [share * len(heads) for share in SHARES]
    rules = [SpeakingRule(*setting, heads) for setting in product(grid, pauses_s)]
    sums = torch.zeros(len(rules), 3, dtype=torch.float64)
    for film, truth in zip(both.watched, both.truths, strict=True):
        sums[:, 2] += len(truth.events)
        if film is not None:
            total = total_score(film, heads)
            spoken = [rule.times_of(total, film) for rule in rules]
            matched = [len(matches(truth.events, times, tolerance_s)) for times in spoken]
            sums[:, 0] += torch.tensor(matched)
            sums[:, 1] += torch.tensor([len(times) for times in spoken])
    return best_of(rules, f1(sums), by="speaking_f1", split=split, questions=len(truths))
