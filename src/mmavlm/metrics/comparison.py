"""Whether one run is better than another: items matched, differences with intervals and tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmavlm.core.errors import DataError
from mmavlm.core.hashing import string_keys
from mmavlm.metrics.answers import ITEM, RANK, TOP_K, VIDEO, video_votes
from mmavlm.metrics.both_runs import Run, common_items
from mmavlm.metrics.captions import score_runs
from mmavlm.metrics.intervals import paired_mcnemar
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.resampling import (
    SAMPLES,
    SEED,
    mean,
    paired_difference,
    paired_intervals,
)
from mmavlm.metrics.taken import Captions, Kind


@dataclass(frozen=True)
class Difference:
    """One score of both runs over the same items.

    `low` and `high` bound the 95 % bootstrap interval of `difference` = b − a, videos being drawn.
    `test` is "McNemar" (exact; `only_a` and `only_b` items were right in one run alone) or
    "permutation" (videos exchanged at random).
    """

    task: str
    score: str
    items: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    test: str
    only_a: int | None = None
    only_b: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Two runs: how many items both answered, how many one alone, and their differences.

    `changed` of the common items have another best answer in b, as their rule compares answers.
    """

    common: int
    changed: int
    only_in_a: int
    only_in_b: int
    differences: list[Difference]


def compare_predictions(
    a: Iterable[Prediction], b: Iterable[Prediction], *, samples: int = SAMPLES, seed: int = SEED
) -> Comparison:
    """Compare two runs on the items both have answered, found by their ids.

    Each is read once, or twice to tell what is wrong, and of a row no more is held than `Run` says.

    Raises:
        DataError: if the runs have other tasks, no item in common, or another truth or rule for
            an item.
    """
    return compare_runs(Run(a), Run(b), samples=samples, seed=seed)


def compare_runs(a: Run, b: Run, *, samples: int = SAMPLES, seed: int = SEED) -> Comparison:
    """Compare two runs whose predictions were read; raises as `compare_predictions`."""
    tasks = [sorted(run.taken.rules) for run in (a, b)]
    if tasks[0] != tasks[1]:
        raise DataError(
            f"the runs answer different tasks, {', '.join(tasks[0])} and {', '.join(tasks[1])}; "
            "compare runs that were tested on the same set and tasks"
        )
    common = common_items(a, b)
    draws = {"samples": samples, "seed": seed}
    differences = [found for task in tasks[0] for found in _of_task(task, a, b, draws)]
    alone = len(a) - common.items, len(b) - common.items
    return Comparison(common.items, common.changed, *alone, differences)


def _of_task(task: str, a: Run, b: Run, draws: dict[str, Any]) -> Iterator[Difference]:
    if (captions := a.taken.captions.get(task)) is not None and task in b.taken.captions:
        yield from _captions(task, captions, b.taken.captions[task], draws)
    kinds: dict[str, Kind] = {"": "generated", "rank_": "ranked"}
    for prefix, kind in kinds.items():
        of_a, of_b = a.taken.rows(task, kind), b.taken.rows(task, kind)
        if of_a is not None and of_b is not None:
            yield from _accuracies(task, prefix, *_joined(of_a, of_b), draws)


def _joined(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The rows (n,5) of the items in both, sorted by item, each with the film that it is about."""
    _, at_a, at_b = np.intersect1d(a[:, ITEM].numpy(), b[:, ITEM].numpy(), return_indices=True)
    a, b = a[torch.from_numpy(at_a)], b[torch.from_numpy(at_b)]
    # only one of them may have been shown it
    films = torch.where(a[:, VIDEO] == a[:, ITEM], b[:, VIDEO], a[:, VIDEO])
    a[:, VIDEO] = films
    b[:, VIDEO] = films
    return a, b


def _accuracies(
    task: str, prefix: str, a: Tensor, b: Tensor, draws: dict[str, Any]
) -> Iterator[Difference]:
    """Top-1 and top-5 over items, and top-1 over videos where these have several items."""
    if not len(a):
        return
    names = [f"{prefix}top{k}" for k in TOP_K]
    right_a, right_b = (torch.stack([rows[:, RANK] < k for k in TOP_K], dim=1) for rows in (a, b))
    yield from _of_right(task, names, right_a, right_b, a[:, VIDEO], draws)
    of_a, of_b = video_votes(a), video_votes(b)
    if len(of_a) < len(a):
        name, ballots = f"{prefix}video_top1", torch.arange(len(of_a))
        yield from _of_right(task, [name], of_a[:, None], of_b[:, None], ballots, draws)


def _of_right(
    task: str, names: list[str], a: Tensor, b: Tensor, groups: Tensor, draws: dict[str, Any]
) -> Iterator[Difference]:
    """What is right (n,S) by each of S scores; they are resampled by the same draws."""
    counts = torch.ones(len(a), 1, dtype=torch.float64)
    of_a, of_b = (torch.cat([right.double(), counts], dim=1) for right in (a, b))
    scores = [partial(_share, column) for column in range(len(names))]
    found = paired_intervals(scores, of_a, of_b, groups, **draws)
    for column, (name, bounded) in enumerate(zip(names, found, strict=True)):
        exact = paired_mcnemar(a[:, column], b[:, column])
        yield Difference(
            task, name, len(a), *bounded, exact.p_value, "McNemar", exact.only_a, exact.only_b
        )


def _share(column: int, sums: Tensor) -> Tensor:
    return mean(sums[..., [column, -1]])


def film_of(pair: tuple[Prediction, Prediction]) -> str:
    """The film that an item of two runs is about, also where only one of them was shown it."""
    a, b = pair
    return b.video_id if a.video_id == a.item_id else a.video_id


def _captions(task: str, a: Captions, b: Captions, draws: dict[str, Any]) -> Iterator[Difference]:
    at_b = {item: row for row, item in enumerate(b.items)}
    # sorted, so that sums do not depend on the order of the files
    pairs = sorted((item, row, at_b[item]) for row, item in enumerate(a.items) if item in at_b)
    if not pairs:
        return
    films = [b.videos[y] if a.videos[x] == item else a.videos[x] for item, x, y in pairs]
    runs = [a.texts[x] for _, x, _ in pairs], [b.texts[y] for *_, y in pairs]
    scores_a, scores_b = score_runs(runs, [a.references[x] for _, x, _ in pairs])
    videos = string_keys(films)
    for name in scores_a:
        of_a, of_b = scores_a[name], scores_b[name]
        found = paired_difference(of_a.score, of_a.statistics, of_b.statistics, videos, **draws)
        yield Difference(task, name, len(pairs), *found, "permutation")
