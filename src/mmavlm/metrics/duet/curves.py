"""Curves over a film's frames: smoothed, scaled, cut at a threshold, and made one span."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

FLAT = 1e-6  # a smaller range is what rounding leaves of a constant curve

Span = tuple[float, float]


def moving_mean(curve: Tensor, radius: int) -> Tensor:
    """The mean (T) of each frame's neighbours i−radius … i+radius of (T), cut at the film's edges.

    It looks ahead: a number of a film that has been seen, and none that a live model has.
    """
    if not len(curve):
        return curve
    pooled = F.avg_pool1d(
        curve[None, None], 2 * radius + 1, stride=1, padding=radius, count_include_pad=False
    )
    return pooled[0, 0]


def scaled(curve: Tensor) -> Tensor:
    """The curve (…,T) between its least value, 0, and its greatest, 1; a constant one is all 0.

    A constant curve prefers no frame, so nothing of it reaches a threshold above 0.
    """
    if not curve.shape[-1]:
        return curve
    low, high = curve.aminmax(dim=-1, keepdim=True)
    span = high - low
    return torch.where(span > FLAT, (curve - low) / span.clamp(min=FLAT), 0.0)


def mask_iou(one: Tensor, other: Tensor) -> Tensor:
    """|∧| / |∨| of masks (…,T) over frames, (…) float64; 0 where both are empty."""
    both, either = (one & other).sum(dim=-1), (one | other).sum(dim=-1)
    return both.double() / either.clamp(min=1)


def best_run(curve: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """First and last frame (…) of the best run of a curve (…,T) at a threshold (…); −1 if none.

    A run are frames side by side at or above the threshold. The best has the largest
    Σ (curve − threshold), and is the earliest of equal ones.
    """
    above = curve - threshold[..., None]
    mask = above >= 0
    begins = mask & ~F.pad(mask[..., :-1], (1, 0))
    run = begins.cumsum(dim=-1)  # 0 before the first run; frames between runs add nothing below
    gains = torch.full(
        (*mask.shape[:-1], mask.shape[-1] + 1), -1.0, dtype=curve.dtype, device=curve.device
    )
    gains.scatter_reduce_(-1, run * mask, above.clamp(min=0) * mask, "sum", include_self=False)
    gains[..., 0] = -1.0
    best = mask & (run == gains.argmax(dim=-1, keepdim=True))
    first = best.long().argmax(dim=-1)
    last = first + best.sum(dim=-1) - 1
    none = ~mask.any(dim=-1)
    return first.masked_fill(none, -1), last.masked_fill(none, -1)


def frame_bounds(times_s: Tensor, duration_s: float) -> tuple[Tensor, Tensor]:
    """From when to when each frame (T) is seen: to the next one's time, or to the film's end."""
    if not len(times_s):
        return times_s, times_s
    end = times_s.new_tensor([max(duration_s, float(times_s[-1]))])
    return times_s, torch.cat([times_s[1:], end])


def span_iou(starts: Tensor, ends: Tensor, spans: Sequence[Span]) -> Tensor:
    """Length of intersection by that of union, of one span each (…) and the union of true ones.

    0 where both have no length.
    """
    true = torch.tensor(merged(spans), dtype=starts.dtype, device=starts.device)
    lengths = (ends - starts).clamp(min=0)
    inner = torch.minimum(ends[..., None], true[:, 1]) - torch.maximum(
        starts[..., None], true[:, 0]
    )
    both = inner.clamp(min=0).sum(dim=-1)
    either = lengths + (true[:, 1] - true[:, 0]).sum() - both
    return torch.where(either > 0, both / either.clamp(min=1e-12), 0.0)


def merged(spans: Sequence[Span]) -> list[Span]:
    """The union of spans as spans apart from each other, in order."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found
