"""Whether a model speaks when something happens, and what a fixed rhythm would come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from mmavlm.core.speaking import HEADS, By, SpeakingRule
from mmavlm.metrics.duet.choosing import Chosen, best_of
from mmavlm.metrics.duet.films import Taken, paired, scores_of
from mmavlm.metrics.duet.matching import delays_s, matches, repeats
from mmavlm.metrics.duet.watched import EventTruth, Watched
from mmavlm.metrics.resampling import mean

TOLERANCE_S = 1.0
EVERY_S = tuple(0.5 * step for step in range(1, 121))  # rhythms to compare with, up to a minute
GRIDS: Mapping[By, tuple[float, ...]] = {  # thresholds a rule is chosen among, a head
    "probability": tuple(round(0.05 * step, 2) for step in range(1, 20)),
    "sum": tuple(0.25 * step for step in range(1, 41)),
    "zscore": tuple(0.25 * step for step in range(1, 17)),
}
PAUSES_S = (0.0, 1.0, 2.0, 5.0, 10.0)

# Columns: matched, said, events; repeated replies, minutes; sum of delays, answered starts, starts.
MATCHED, SAID, EVENTS, REPEATED, MINUTES, DELAYS_S, ANSWERED, STARTS = range(8)
OWN = 8  # then matched and said of each rhythm


def times_spoken(rule: SpeakingRule, film: Watched) -> list[float]:
    """When a rule speaks in a film.

    Raises:
        DataError: if a head has no scores.
    """
    return rule.times_s(film.times_s, total_score(film, rule.heads).tolist())


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


def speaking_statistics(
    watched: Sequence[Watched | None],
    truths: Sequence[EventTruth],
    rule: SpeakingRule | None = None,
    tolerance_s: float = TOLERANCE_S,
    every_s: Sequence[float] = EVERY_S,
) -> Tensor:
    """What n questions bring, (n, 8 + 2 for each rhythm of `every_s`): see the columns above.

    Replies count, or what the `rule` would say by the scores. A question that was not watched
    (None) has events and no reply.

    Raises:
        DataError: if a head of the rule has no scores.
    """
    rows = []
    for film, truth in zip(watched, truths, strict=True):
        # all that is known without a film
        duration_s = max((event.end_s for event in truth.events), default=0.0)
        row = [0.0, 0.0, len(truth.events), 0.0, 0.0, 0.0, 0.0, _starts(truth)]
        if film is not None:
            duration_s = film.duration_s
            row = _talk(film, truth, rule, tolerance_s)
        for period_s in every_s:
            beats = math.floor(duration_s / period_s)
            rhythm = [period_s * beat for beat in range(1, beats + 1)]
            row += [len(matches(truth.events, rhythm, tolerance_s)), beats]
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def _talk(
    film: Watched, truth: EventTruth, rule: SpeakingRule | None, tolerance_s: float
) -> list[float]:
    """The first 8 columns of a film that was watched."""
    times = [reply.time_s for reply in film.replies] if rule is None else times_spoken(rule, film)
    # a rule says no words
    repeated = repeats([reply.text for reply in film.replies]) if rule is None else math.nan
    delays = delays_s(truth.events, times)
    return [len(matches(truth.events, times, tolerance_s)), len(times), len(truth.events),
            repeated, film.duration_s / 60, sum(delays), len(delays), _starts(truth)]  # fmt: skip


def _starts(truth: EventTruth) -> int:
    return len({event.start_s for event in truth.events})


def speaking_scores(taken: Taken, every_s: Sequence[float] = EVERY_S) -> dict[str, float]:
    """F1 of speaking in time, and what else tells of a talker, from `speaking_statistics`.

    Replies and events are matched one to one (`matches`) and summed over films:
    `speaking_precision`, `speaking_recall`, `speaking_f1`. `delay_s` is the mean time from an
    event's start to the first reply before the next event, over the share `answered` that has one;
    `duplicates` the share of replies whose text was there before, `replies_per_minute`. All have
    95 % bootstrap intervals over films (`_low`, `_high`). `constant_f1` is the F1 of speaking every
    `constant_every_s` seconds, the best of `every_s` for these very events, which no rule could
    know: a number is worth something above it only.
    """
    sums = taken.statistics.sum(dim=0)
    matched, said = sums[OWN:].unflatten(0, (-1, 2)).unbind(dim=1)
    rhythms = f1(torch.stack([matched, said, sums[EVENTS].expand_as(said)], dim=1))
    best = int(rhythms.nan_to_num(-1.0).argmax())
    first = OWN + 2 * best
    worded = {} if sums[REPEATED].isnan() else taken.score("duplicates", mean, (REPEATED, SAID))
    return {
        **taken.score("speaking_precision", precision, (MATCHED, SAID)),
        **taken.score("speaking_recall", mean, (MATCHED, EVENTS)),
        **taken.score("speaking_f1", f1, (MATCHED, SAID, EVENTS)),
        **taken.score("delay_s", mean, (DELAYS_S, ANSWERED)),
        **taken.score("answered", mean, (ANSWERED, STARTS)),
        **taken.score("replies_per_minute", mean, (SAID, MINUTES)),
        **worded,
        **taken.score("constant_f1", f1, (first, first + 1, EVENTS)),
        "constant_every_s": every_s[best],
        **taken.counts,
    }


def choose_rule(
    watched: Sequence[Watched],
    truths: Sequence[EventTruth],
    *,
    split: str,
    heads: tuple[str, ...] = HEADS,
    by: By = "probability",
    thresholds: Sequence[float] | None = None,
    pauses_s: Sequence[float] = PAUSES_S,
    tolerance_s: float = TOLERANCE_S,
) -> Chosen[SpeakingRule]:
    """The rule with the largest F1 of speaking over the questions of a split.

    Without `thresholds` they are those of `GRIDS`, times the number of heads but for z-scores.

    Raises:
        ConfigError: if it is the test split.
        DataError: if there is no question in common, or a head has no scores.
    """
    both = paired(watched, truths)
    heads_counted = 1 if by == "zscore" else len(heads)
    grid = thresholds or [threshold * heads_counted for threshold in GRIDS[by]]
    rules = [SpeakingRule(*setting, heads, by) for setting in product(grid, pauses_s)]
    sums = torch.zeros(len(rules), 3, dtype=torch.float64)
    for film, truth in zip(both.watched, both.truths, strict=True):
        sums[:, 2] += len(truth.events)
        if film is not None:
            totals = total_score(film, heads).tolist()
            spoken = [rule.times_s(film.times_s, totals) for rule in rules]
            matched = [len(matches(truth.events, times, tolerance_s)) for times in spoken]
            sums[:, 0] += torch.tensor(matched)
            sums[:, 1] += torch.tensor([len(times) for times in spoken])
    return best_of(rules, f1(sums), by="speaking_f1", split=split, questions=len(truths))
