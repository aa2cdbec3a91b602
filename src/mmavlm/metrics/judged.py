"""Verdicts of a judge, by task: shares and mean scores of what was judged, with intervals.

Items of one film are not independent, so intervals draw whole films.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.intervals import bootstrap_interval
from mmavlm.metrics.resampling import (
    SAMPLES,
    SEED,
    group_sums,
    mean,
    paired_difference,
    with_count,
)

ALL = "all"  # the tasks together


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % bootstrap interval, films being drawn."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ScoredItem:
    """The verdict on one item: a score of 0 to 5 and, if that was asked, whether it is right.

    `score` None stands for a verdict that could not be had.
    """

    task: str
    video_id: str
    score: float | None
    correct: bool | None = None


@dataclass(frozen=True)
class JudgedScore:
    """Verdicts on one aspect of the items of a task; `failed` of them could not be had.

    `score` and `accuracy` are of the `count` others, None where there are none.
    """

    task: str
    aspect: str
    count: int
    failed: int
    score: Mean | None
    accuracy: Mean | None = None


@dataclass(frozen=True)
class PairedItem:
    """One item judged for two runs: who won (1: b, 0: a tie, -1: a), and the scores of both.

    `sign` None stands for a verdict that could not be had.
    """

    task: str
    video_id: str
    sign: int | None
    a: float = 0.0
    b: float = 0.0


@dataclass(frozen=True)
class JudgedPair:
    """Shares of items that b won, tied and lost against a, and the mean scores, 0 to 5.

    `low` and `high` bound the 95 % interval of `difference` = b − a of the scores; `p_value` is of
    the permutation test in which films are exchanged. All are of the `count` items that have a
    verdict; `failed` have none.
    """

    task: str
    count: int
    failed: int
    won: Mean
    tied: Mean
    lost: Mean
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float


def judged_scores(
    items: Sequence[ScoredItem], aspect: str, *, samples: int = SAMPLES, seed: int = SEED
) -> list[JudgedScore]:
    """The scores of each task, and of all together where there are several."""
    found = []
    for task, rows in _by_task(items).items():
        there = [row for row in rows if row.score is not None]
        films = string_keys(row.video_id for row in there)
        score = accuracy = None
        if there:
            score = _mean([row.score or 0.0 for row in there], films, samples, seed)
            if all(row.correct is not None for row in there):
                accuracy = _mean([bool(row.correct) for row in there], films, samples, seed)
        found.append(JudgedScore(task, aspect, len(there), len(rows) - len(there), score, accuracy))
    return found


def judged_pairs(
    items: Sequence[PairedItem], *, samples: int = SAMPLES, seed: int = SEED
) -> list[JudgedPair]:
    """Two runs compared in each task that has a verdict, and in all where there are several."""
    found = []
    for task, rows in _by_task(items).items():
        there = [row for row in rows if row.sign is not None]
        if not there:
            continue
        films = string_keys(row.video_id for row in there)
        shares = [
            _mean([row.sign == sign for row in there], films, samples, seed) for sign in (1, 0, -1)
        ]
        a, b = (torch.tensor(side) for side in zip(*((r.a, r.b) for r in there), strict=True))
        paired = paired_difference(
            mean, with_count(a), with_count(b), films, samples=samples, seed=seed
        )
        won, tied, lost = shares
        failed = len(rows) - len(there)
        found.append(JudgedPair(task, len(there), failed, won, tied, lost, *paired))
    return found


Item = TypeVar("Item", ScoredItem, PairedItem)


def _by_task(items: Sequence[Item]) -> dict[str, list[Item]]:
    by_task: dict[str, list[Item]] = {}
    for item in items:
        by_task.setdefault(item.task, []).append(item)
    if len(by_task) > 1:
        by_task[ALL] = list(items)
    return by_task


def _mean(values: Sequence[float], films: Tensor, samples: int, seed: int) -> Mean:
    statistics = with_count(torch.tensor(values, dtype=torch.float64))
    low, high = bootstrap_interval(
        group_sums(statistics, films), mean, resamples=samples, seed=seed
    )
    total = statistics.sum(dim=0)
    return Mean(float(mean(total)), low, high)
