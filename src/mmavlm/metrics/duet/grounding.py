"""Where in a film is what a question asks for: IoU of the frames found, and of one span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmavlm.core.streams import RELEVANCE
from mmavlm.metrics.duet.choosing import Chosen, best_of
from mmavlm.metrics.duet.curves import (
    best_run,
    frame_bounds,
    mask_iou,
    moving_mean,
    scaled,
    span_iou,
)
from mmavlm.metrics.duet.films import Taken, paired, scores_of, with_events
from mmavlm.metrics.duet.watched import EventTruth, Watched
from mmavlm.metrics.intervals import proportion

WINDOWS = tuple(range(15))  # MMDuet's grid
THRESHOLDS = tuple(round(0.3 + 0.02 * step, 2) for step in range(21))
LEVELS = (0.3, 0.5, 0.7)
HEAD = RELEVANCE

By = Literal["miou", "span_miou"]
KINDS: dict[By, int] = {"miou": 0, "span_miou": 1}


@dataclass(frozen=True)
class Cut:
    """How a curve becomes frames: mean over `window` frames to either side, cut at `threshold`."""

    window: int
    threshold: float


def grounding_ious(
    film: Watched,
    truth: EventTruth,
    windows: Sequence[int],
    thresholds: Sequence[float],
    head: str = HEAD,
) -> Tensor:
    """IoU (2,W,K) of masks and of spans, for each of W windows and K thresholds.

    The scores of the head are smoothed (`moving_mean`), scaled from 0 to 1 over the film
    (`scaled`), and cut: p_i ≥ τ. The mask's IoU is |P∧G|/|P∨G| over frames, of which G are those
    with s ≤ t_i ≤ e of a true span; it is what MMDuet calls its IoU (arXiv 2411.17991). A mask may
    lie in pieces, which no span has. So the second IoU is that of lengths, as moment retrieval has
    it (arXiv 1705.02101): the found span is the best run of frames, `best_run`, and lasts from its
    first frame to the frame after its last, or the film's end. No frame gives 0.

    Raises:
        DataError: if there are no scores of that head.
    """
    curve, times = scores_of(film, head), torch.tensor(film.times_s, dtype=torch.float64)
    if not len(curve):
        return torch.zeros(2, len(windows), len(thresholds), dtype=torch.float64)
    smooth = scaled(torch.stack([moving_mean(curve, window) for window in windows]))
    cuts = torch.tensor(thresholds, dtype=torch.float64)
    spans = [(event.start_s, event.end_s) for event in truth.events]
    true = torch.zeros(len(times), dtype=torch.bool)
    for start, end in spans:
        true |= (times >= start) & (times <= end)
    curves = smooth[:, None].expand(-1, len(cuts), -1)
    masks = mask_iou(curves >= cuts[:, None], true)
    first, last = best_run(curves, cuts.expand(len(windows), -1))
    begins, ends = frame_bounds(times, film.duration_s)
    found = span_iou(begins[first.clamp(min=0)], ends[last.clamp(min=0)], spans)
    return torch.stack([masks, torch.where(first >= 0, found, 0.0)])


def grounding_statistics(
    watched: Sequence[Watched | None], truths: Sequence[EventTruth], cut: Cut, head: str = HEAD
) -> Tensor:
    """IoU (n,2) of masks and spans, 0 of a question that was not watched (None).

    Raises:
        DataError: if a film has no scores of the head.
    """
    return _grids(watched, truths, [cut.window], [cut.threshold], head).flatten(1)


def grounding_scores(taken: Taken) -> dict[str, float]:
    """Means and shares of IoU over questions, from `grounding_statistics`.

    `miou`, and `iou30`, `iou50`, `iou70`, the share of questions with an IoU of at least .3, .5,
    .7, are of masks, as MMDuet has them for Charades-STA; `span_…` are the same of spans. Means
    have 95 % bootstrap intervals over films, shares Wilson's (`_low`, `_high`).
    """
    values: dict[str, float] = {}
    for kind, column in KINDS.items():
        values |= taken.mean(kind, column) | _shares(taken, kind, column)
    return values | taken.counts


def _shares(taken: Taken, kind: By, column: int) -> dict[str, float]:
    prefix = kind.removesuffix("miou")
    ious = taken.statistics[:, column]
    values: dict[str, float] = {}
    for level in LEVELS:
        name = f"{prefix}iou{100 * level:.0f}"
        values |= proportion(name, int((ious >= level).sum()), len(ious))
    return values


def choose_cut(
    watched: Sequence[Watched],
    truths: Sequence[EventTruth],
    *,
    split: str,
    by: By = "miou",
    windows: Sequence[int] = WINDOWS,
    thresholds: Sequence[float] = THRESHOLDS,
    head: str = HEAD,
) -> Chosen[Cut]:
    """The window and threshold with the largest mean IoU over the questions of a split.

    Questions to which nothing is to be found are left out.

    Raises:
        ConfigError: if it is the test split.
        DataError: if there is no question in common, or no score of the head.
    """
    both = with_events(paired(watched, truths))
    grid = _grids(both.watched, both.truths, windows, thresholds, head)[:, KINDS[by]].mean(dim=0)
    settings = [Cut(window, threshold) for window in windows for threshold in thresholds]
    return best_of(settings, grid.flatten(), by=by, split=split, questions=len(both.truths))


def _grids(
    watched: Sequence[Watched | None],
    truths: Sequence[EventTruth],
    windows: Sequence[int],
    thresholds: Sequence[float],
    head: str,
) -> Tensor:
    """IoUs (n,2,W,K) of n questions, 0 of those not watched."""
    none = torch.zeros(len(KINDS), len(windows), len(thresholds), dtype=torch.float64)
    return torch.stack([
        none if film is None else grounding_ious(film, truth, windows, thresholds, head)
        for film, truth in zip(watched, truths, strict=True)
    ])  # fmt: skip
