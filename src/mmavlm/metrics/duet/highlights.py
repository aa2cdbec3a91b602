"""Highlights of films: which clips of two seconds annotators find salient (QVHighlights)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmavlm.core.streams import RELEVANCE
from mmavlm.metrics.duet.choosing import Chosen, best_of
from mmavlm.metrics.duet.curves import moving_mean
from mmavlm.metrics.duet.films import Taken, paired, scores_of
from mmavlm.metrics.duet.watched import HighlightTruth, Watched
from mmavlm.metrics.intervals import proportion

CLIP_S = 2.0
LEVELS = {"fair": 2, "good": 3, "very_good": 4}  # a rating from which a clip is a highlight
ANNOTATORS = 3
WINDOWS = tuple(range(15))  # MMDuet's grid
HEAD = RELEVANCE
BYS = tuple(f"{level}_{kind}" for kind in ("map", "hit1") for level in LEVELS)
BY = "very_good_map"
DECIMALS = 9  # what rounding does to a sum must not order clips


def clip_scores(film: Watched, clips: int, window: int, head: str = HEAD) -> Tensor:
    """The score (C) of each clip: the sum over its frames of the scores, smoothed (`moving_mean`).

    A clip without a frame has 0, and frames behind the last clip count for nothing.

    Raises:
        DataError: if there are no scores of that head.
    """
    smooth = moving_mean(scores_of(film, head), window)
    clip = (torch.tensor(film.times_s, dtype=torch.float64) / CLIP_S).long()
    inside = clip < clips
    sums = torch.zeros(clips, dtype=torch.float64).index_add_(0, clip[inside], smooth[inside])
    return sums.round(decimals=DECIMALS)


def ratings_of(truth: HighlightTruth) -> Tensor:
    """All annotators' ratings of all clips, (3,C), 0 of those that have none."""
    ratings = torch.zeros(ANNOTATORS, int(truth.duration_s / CLIP_S), dtype=torch.long)
    if truth.clips:
        ratings[:, list(truth.clips)] = torch.tensor(truth.ratings).T
    return ratings


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Interpolated AP (L) of scores (C) for each of labels (L,C), bool.

    The mean of the interpolated precision over those thresholds at which recall rises, where the
    precision at a threshold is the best at that recall or a larger one. Clips of equal score share
    a threshold. It is QVHighlights' (arXiv 2107.09609, its evaluation): a mean over thresholds, not
    over positives. Without a positive it is 0.
    """
    if not len(scores):
        return torch.zeros(len(labels), dtype=torch.float64)
    order = scores.argsort(descending=True, stable=True)
    ordered = scores[order]
    found = labels[:, order].double().cumsum(dim=1)
    ends = torch.cat([ordered[1:] != ordered[:-1], ordered.new_ones(1).bool()])
    precision = (found / torch.arange(1, len(scores) + 1))[:, ends]
    found = found[:, ends]
    best = precision.flip(1).cummax(dim=1).values.flip(1)
    rises = found > torch.nn.functional.pad(found[:, :-1], (1, 0))
    return (best * rises).sum(dim=1) / rises.sum(dim=1).clamp(min=1)


def film_highlights(
    film: Watched | None, truth: HighlightTruth, window: int, head: str = HEAD
) -> Tensor:
    """Statistics (6): AP at each of `LEVELS`, mean over annotators, then HIT@1 at each.

    HIT@1 is whether the clip of the largest score, the first of equal ones, is a highlight to any
    annotator. All are 0 of a film that was not watched, or has not one clip.

    Raises:
        DataError: if there are no scores of the head.
    """
    ratings = ratings_of(truth)
    if film is None or not ratings.shape[1]:
        return torch.zeros(2 * len(LEVELS), dtype=torch.float64)
    scores = clip_scores(film, ratings.shape[1], window, head)
    labels = torch.stack([ratings >= least for least in LEVELS.values()])  # (3 levels, 3, C)
    precisions = average_precision(scores, labels.flatten(0, 1)).view(len(LEVELS), ANNOTATORS)
    hits = labels[:, :, scores.argmax()].any(dim=1)
    return torch.cat([precisions.mean(dim=1), hits.double()])


def highlight_statistics(
    watched: Sequence[Watched | None],
    truths: Sequence[HighlightTruth],
    window: int,
    head: str = HEAD,
) -> Tensor:
    """`film_highlights` (n,6) of n questions.

    Raises:
        DataError: if a film has no scores of the head.
    """
    rows = [
        film_highlights(film, truth, window, head)
        for film, truth in zip(watched, truths, strict=True)
    ]
    return torch.stack(rows)


def highlight_scores(taken: Taken) -> dict[str, float]:
    """MAP and HIT@1 over questions, from `highlight_statistics`.

    `fair_map`, `good_map`, `very_good_map` are over questions and annotators, and `…_hit1` over
    questions. mAP has 95 % bootstrap intervals over films, HIT@1 Wilson's (`_low`, `_high`).
    """
    values: dict[str, float] = {}
    for column, level in enumerate(LEVELS):
        values |= taken.mean(f"{level}_map", column)
        hits = taken.statistics[:, len(LEVELS) + column]
        values |= proportion(f"{level}_hit1", int(hits.sum()), len(hits))
    return values | taken.counts


def choose_window(
    watched: Sequence[Watched],
    truths: Sequence[HighlightTruth],
    *,
    split: str,
    by: str = BY,
    windows: Sequence[int] = WINDOWS,
    head: str = HEAD,
) -> Chosen[int]:
    """The window with the largest mAP or HIT@1 at one of `LEVELS` over the questions of a split.

    Raises:
        ConfigError: if it is the test split.
        DataError: if there is no question in common, or no score of the head.
    """
    both = paired(watched, truths)
    tables = [highlight_statistics(both.watched, truths, window, head) for window in windows]
    values = torch.stack(tables).mean(dim=1)[:, BYS.index(by)]
    return best_of(windows, values, by=by, split=split, questions=len(truths))
