"""Arms of an experiment, each run with several seeds: means, intervals, and paired tests.

Two kinds of chance are kept apart. Other seeds: the runs are drawn, and a seed's two runs make a
pair (Student's t). Other films: the test films are drawn for the runs as they are, and a film's
answers by two arms make a pair (bootstrap and permutations, `resampling`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from mmavlm.core.errors import DataError
from mmavlm.core.hashing import string_keys
from mmavlm.metrics.planted_bias import Scored
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.resampling import SAMPLES, paired_difference

CONFIDENCE = 0.95


@dataclass(frozen=True)
class ArmRun:
    """A run's scores, and of the items they sum over ids and films, in one order."""

    items: tuple[str, ...]
    films: Tensor
    scores: Mapping[str, Scored]

    @classmethod
    def of(cls, predictions: Sequence[Prediction], scores: Mapping[str, Scored]) -> ArmRun:
        """The scores of predictions, whose items are put in the order of their ids."""
        order = sorted(range(len(predictions)), key=lambda i: predictions[i].item_id)
        return cls(
            tuple(predictions[i].item_id for i in order),
            string_keys(predictions[i].video_id for i in order),
            {name: Scored(s.score, s.statistics[order]) for name, s in scores.items()},
        )


Runs = Mapping[int, ArmRun]  # seed → run


@dataclass(frozen=True)
class Mean:
    """A score of an arm: its value with each seed, their mean, its 95 % interval over seeds."""

    values: dict[int, float]
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmDifference:
    """How an arm differs from another in one score, over the seeds both have.

    `low`, `high` and `p_seeds` are of the paired t-test over seeds, `p_holm` the same p-value held
    against all arms that are compared; `film_low`, `film_high` and `p_films` are of films drawn and
    exchanged, the runs being those at hand.
    """

    seeds: tuple[int, ...]
    difference: float
    low: float
    high: float
    p_seeds: float
    film_low: float
    film_high: float
    p_films: float
    p_holm: float = math.nan


def over_seeds(runs: Runs, score: str) -> Mean:
    """A score's mean over seeds with its t interval, whose bounds are nan with one seed."""
    values = {seed: value_of(run.scores[score]) for seed, run in sorted(runs.items())}
    return Mean(values, *_t_test(list(values.values()))[:3])


def value_of(scored: Scored) -> float:
    """The score of all items."""
    return float(scored.score(scored.statistics.sum(dim=0)))


def compare_arms(arm: Runs, other: Runs, score: str, *, samples: int = SAMPLES) -> ArmDifference:
    """`arm` less `other` in one score.

    Raises:
        DataError: if they have no seed in common, or were tested on different items.
    """
    seeds = tuple(sorted(arm.keys() & other.keys()))
    if not seeds:
        raise DataError(
            f"no seed in common: one arm has {sorted(arm)}, the other {sorted(other)}; run both "
            "with the same seeds"
        )
    for seed in seeds:
        if not arm[seed].items == other[seed].items == arm[seeds[0]].items:
            raise DataError(f"the runs with seeds {seeds[0]} and {seed} answered different items")
    of_other, of_arm = ([runs[s].scores[score] for s in seeds] for runs in (other, arm))
    apart = [value_of(a) - value_of(b) for a, b in zip(of_arm, of_other, strict=True)]
    difference, low, high, p_seeds = _t_test(apart)
    # Weights of items do not depend on the run, so the score of the sums is the mean of the scores.
    of_films = [torch.stack([s.statistics for s in runs]).sum(dim=0) for runs in (of_other, of_arm)]
    films = paired_difference(
        of_arm[0].score, of_films[0], of_films[1], arm[seeds[0]].films, samples=samples
    )
    return ArmDifference(
        seeds, difference, low, high, p_seeds, films.low, films.high, films.p_value
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that hold for all of a family of tests at once (Holm, 1979); nan stays nan.

    The i-th smallest of m is multiplied by m − i + 1, and none is below one before it.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, least = [math.nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(order):
        least = max(least, min(1.0, p * (len(order) - rank)))
        adjusted[i] = least
    return adjusted


def _t_test(values: Sequence[float]) -> tuple[float, float, float, float]:
    """The mean of n values, its 95 % interval, p of it being 0; nan where there is one value."""
    centre = math.fsum(values) / len(values)
    if len(values) == 1:
        return centre, math.nan, math.nan, math.nan
    if max(values) == min(values):  # no spread: an interval without width, and no test
        return centre, centre, centre, math.nan
    found = stats.ttest_1samp(values, popmean=0.0)
    bounds = found.confidence_interval(CONFIDENCE)
    return centre, float(bounds.low), float(bounds.high), float(found.pvalue)
