"""Intervals and tests for scores that are no plain proportion, by drawing films anew.

A score is a function of sums over items: a mean is the sum of values by their number, BLEU a
function of summed counts. Each item brings a row of statistics (n,S), and `score` maps sums (…,S)
to (…). Items of one film are not independent, so whole films are drawn, as groups of items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]

SAMPLES = 2000
SEED = 42
_CHUNK = 256  # samples drawn at once, or fewer
_NUMBERS = 2**22  # that are drawn at once, at most, but for one sample


class Bounded(NamedTuple):
    """Two scores, and their difference b − a with its interval."""

    a: float
    b: float
    difference: float
    low: float
    high: float


class Paired(NamedTuple):
    """Two scores, their difference b − a with its interval, and the p-value of the difference."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float


def group_sums(statistics: Tensor, groups: Tensor) -> Tensor:
    """Statistics (n,S) summed over items of equal group keys (n,), (G,S) float64."""
    keys, group = groups.unique(return_inverse=True)
    sums = statistics.new_zeros(len(keys), statistics.shape[1], dtype=torch.float64)
    return sums.index_add_(0, group, statistics.double())


def mean(sums: Tensor) -> Tensor:
    """The score of statistics (value, 1): sum of values by number of items."""
    return sums[..., 0] / sums[..., 1]


def with_count(values: Tensor) -> Tensor:
    """The statistics (n,2) whose `mean` is the mean of values (n,)."""
    values = values.double()
    return torch.stack([values, torch.ones_like(values)], dim=1)


def paired_difference(
    score: Score,
    a: Tensor,
    b: Tensor,
    groups: Tensor,
    *,
    confidence: float = 0.95,
    samples: int = SAMPLES,
    seed: int = SEED,
) -> Paired:
    """Two models on the same n items: difference, bootstrap interval, two-sided permutation test.

    Statistics `a` and `b` (n,S) are in the same order. The bootstrap draws groups for both at
    once; the test exchanges the models' answers to a group at random (Noreen, 1989), and
    p = (1 + exchanges with a difference as large) / (1 + samples).

    Raises:
        ValueError: if the two do not have the same shape, or hold no item.
    """
    (found,) = paired_intervals(
        [score], a, b, groups, confidence=confidence, samples=samples, seed=seed
    )
    sums_a, sums_b = group_sums(a, groups), group_sums(b, groups)
    total_a, total_b = sums_a.sum(dim=0), sums_b.sum(dim=0)
    change = sums_b - sums_a
    as_large = 0
    for swap in _swaps(len(change), samples, seed):
        moved = swap @ change
        difference = score(total_b - moved) - score(total_a + moved)
        # rounding must not make an exchange that changes nothing smaller than what was seen
        as_large += int((difference.abs() >= abs(found.difference) - 1e-12).sum())
    return Paired(*found, (1 + as_large) / (1 + samples))


def paired_intervals(
    scores: Sequence[Score],
    a: Tensor,
    b: Tensor,
    groups: Tensor,
    *,
    confidence: float = 0.95,
    samples: int = SAMPLES,
    seed: int = SEED,
) -> list[Bounded]:
    """For each score what `paired_difference` finds, without its test; all have the same draws.

    Raises:
        ValueError: if the two do not have the same shape, or hold no item.
    """
    if a.shape != b.shape or len(a) == 0:
        raise ValueError(
            "paired_difference: both models must answer the same items, "
            f"got statistics {tuple(a.shape)} and {tuple(b.shape)}"
        )
    sums_a, sums_b = group_sums(a, groups), group_sums(b, groups)
    total_a, total_b = sums_a.sum(dim=0), sums_b.sum(dim=0)
    drawn: list[list[Tensor]] = [[] for _ in scores]
    for weights in _weights(len(sums_a), samples, seed):
        of_a, of_b = weights @ sums_a, weights @ sums_b
        for differences, score in zip(drawn, scores, strict=True):
            differences.append(score(of_b) - score(of_a))
    found = []
    for differences, score in zip(drawn, scores, strict=True):
        value_a, value_b = float(score(total_a)), float(score(total_b))
        low, high = _percentiles(torch.cat(differences), confidence)
        found.append(Bounded(value_a, value_b, value_b - value_a, low, high))
    return found


def _chunks(groups: int, samples: int) -> Iterator[int]:
    """How many samples are drawn at once, in turn; what is drawn does not depend on it."""
    most = max(1, min(_CHUNK, _NUMBERS // groups))
    for start in range(0, samples, most):
        yield min(most, samples - start)


def _weights(groups: int, samples: int, seed: int) -> Iterator[Tensor]:
    """How often each group is drawn, (c,groups) float64, until there are `samples` rows."""
    generator = torch.Generator().manual_seed(seed)
    for rows in _chunks(groups, samples):
        drawn = torch.randint(groups, (rows, groups), generator=generator)
        drawn += torch.arange(0, rows * groups, groups)[:, None]
        yield drawn.flatten().bincount(minlength=rows * groups).view(rows, groups).double()


def _swaps(groups: int, samples: int, seed: int) -> Iterator[Tensor]:
    """Whether the models change places in each group, (c,groups) float64 of 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for rows in _chunks(groups, samples):
        yield torch.randint(2, (rows, groups), generator=generator).double()


def _percentiles(drawn: Tensor, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    bounds = drawn.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return float(bounds[0]), float(bounds[1])
