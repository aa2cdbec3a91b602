"""Whether one run is better than another: items matched, differences with intervals and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmavlm.core.errors import DataError
from mmavlm.core.hashing import string_keys
from mmavlm.metrics.answers import ITEM, RANK, answer_rows, video_votes
from mmavlm.metrics.captions import score_runs
from mmavlm.metrics.intervals import paired_mcnemar
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.resampling import SAMPLES, SEED, Paired, mean, paired_difference, with_count
from mmavlm.metrics.rules import Compare, normalise_answer

Pairs = Sequence[tuple[Prediction, Prediction]]
TOP_K = (1, 5)


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
    a: Sequence[Prediction], b: Sequence[Prediction], *, samples: int = SAMPLES, seed: int = SEED
) -> Comparison:
    """Compare two runs on the items both have answered, found by their ids.

    Raises:
        DataError: if the runs have other tasks, no item in common, or another truth or rule for
            an item.
    """
    _check_tasks(a, b)
    # sorted, so that a seed gives the same draws whatever the order of the files
    by_id = {row.item_id: row for row in b}
    pairs = [(row, by_id[row.item_id]) for row in sorted(a, key=lambda row: row.item_id)
             if row.item_id in by_id]  # fmt: skip
    if not pairs:
        raise DataError(
            f"the runs have no item in common: {a[0].item_id!r} and {b[0].item_id!r} are of "
            "different sets or splits; compare runs that were tested on the same one"
        )
    for of_a, of_b in pairs:
        _check_same_item(of_a, of_b)

    def paired(score: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, groups: Tensor) -> Paired:
        return paired_difference(score, a, b, groups, samples=samples, seed=seed)

    differences = [
        difference
        for task in dict.fromkeys(row.task for row, _ in pairs)
        for difference in _of_task(task, [pair for pair in pairs if pair[0].task == task], paired)
    ]
    changed = sum(_best(of_a) != _best(of_b) for of_a, of_b in pairs)
    alone = len(a) - len(pairs), len(b) - len(pairs)
    return Comparison(len(pairs), changed, *alone, differences)


def _best(row: Prediction) -> str:
    best = (row.answers or row.ranking)[0].text
    return normalise_answer(best, "whole" if row.compare == "caption" else row.compare)


_PairedDifference = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor, Tensor], Paired]


def _of_task(task: str, pairs: Pairs, paired: _PairedDifference) -> Iterator[Difference]:
    rule = pairs[0][0].compare
    generated = [pair for pair in pairs if pair[0].answers and pair[1].answers]
    ranked = [pair for pair in pairs if pair[0].ranking and pair[1].ranking]
    if generated and rule == "caption":
        yield from _captions(task, generated, paired)
    elif generated and rule != "caption":
        yield from _accuracies(task, "", generated, rule, paired)
    if ranked:
        yield from _accuracies(task, "rank_", ranked, "whole", paired)


def _accuracies(
    task: str, prefix: str, pairs: Pairs, rule: Compare, paired: _PairedDifference
) -> Iterator[Difference]:
    """Top-1 and top-5 over items, and top-1 over videos where these have several items."""
    films = list(map(film_of, pairs))
    of_a, of_b = (_rows([pair[side] for pair in pairs], films, prefix, rule) for side in (0, 1))
    videos = string_keys(films)
    for k in TOP_K:
        right = of_a[:, RANK] < k, of_b[:, RANK] < k
        yield _accuracy(task, f"{prefix}top{k}", *right, videos, paired)
    order = of_a[:, ITEM].argsort()
    votes = video_votes(of_a[order]), video_votes(of_b[order])
    if len(votes[0]) < len(pairs):
        ballots = torch.arange(len(votes[0]))
        yield _accuracy(task, f"{prefix}video_top1", *votes, ballots, paired)


def _rows(
    predictions: Sequence[Prediction], films: Sequence[str], prefix: str, rule: Compare
) -> Tensor:
    given = [row.ranking if prefix else row.answers for row in predictions]
    return answer_rows(
        [row.item_id for row in predictions],
        films,
        [[answer.text for answer in answers] for answers in given],
        [row.truth for row in predictions],
        rule,
        [row.references for row in predictions],
        [row.prompt for row in predictions],
    )


def _accuracy(
    task: str, score: str, a: Tensor, b: Tensor, groups: Tensor, paired: _PairedDifference
) -> Difference:
    found = paired(mean, with_count(a), with_count(b), groups)
    exact = paired_mcnemar(a, b)
    return Difference(
        task, score, len(a), found.a, found.b, found.difference, found.low, found.high,
        exact.p_value, "McNemar", exact.only_a, exact.only_b,
    )  # fmt: skip


def film_of(pair: tuple[Prediction, Prediction]) -> str:
    """The film that an item of two runs is about, also where only one of them was shown it."""
    a, b = pair
    return b.video_id if a.video_id == a.item_id else a.video_id


def _captions(task: str, pairs: Pairs, paired: _PairedDifference) -> Iterator[Difference]:
    references = [row.references for row, _ in pairs]
    videos = string_keys(map(film_of, pairs))
    runs = [[pair[side].answers[0].text for pair in pairs] for side in (0, 1)]
    scores_a, scores_b = score_runs(runs, references)
    for name in scores_a:
        a, b = scores_a[name], scores_b[name]
        found = paired(a.score, a.statistics, b.statistics, videos)
        yield Difference(
            task, name, len(pairs), found.a, found.b, found.difference, found.low, found.high,
            found.p_value, "permutation",
        )  # fmt: skip


def _check_tasks(a: Sequence[Prediction], b: Sequence[Prediction]) -> None:
    tasks = sorted({row.task for row in a}), sorted({row.task for row in b})
    if tasks[0] != tasks[1]:
        raise DataError(
            f"the runs answer different tasks, {', '.join(tasks[0])} and {', '.join(tasks[1])}; "
            "compare runs that were tested on the same set and tasks"
        )


def _check_same_item(a: Prediction, b: Prediction) -> None:
    # a question of which nothing is shown has its own name as that of its video
    shown = a.item_id not in (a.video_id, b.video_id)
    for key in ("task", *(["video_id"] if shown else []), "truth", "compare"):
        if getattr(a, key) != getattr(b, key):
            raise DataError(
                f"item {a.item_id!r} is not the same in both runs: {key} is {getattr(a, key)!r} "
                f"and {getattr(b, key)!r}; compare runs that were tested on the same set"
            )
    if sorted(a.references) != sorted(b.references):
        raise DataError(
            f"item {a.item_id!r} has other references in one run than in the other; compare runs "
            "that were tested on the same files of captions"
        )
