"""Which frames of films a step learns from where it cannot learn from all of them.

Shapes: N frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmavlm.model.llm.stream_rows import FrameAt, last_of_streams


def factors_of(frames: Sequence[FrameAt], weights: Tensor, count: int) -> Tensor:
    """By what the weight (N,) of each frame in the loss is multiplied: 0 where it is left out.

    The last frame of a stream is always learned from. Of each film's others `count` are drawn,
    the more probable the more they weigh, and weigh the more the less probable they are: the
    expected sum is that over all frames (Horvitz and Thompson 1952). Draws are torch's.
    """
    last = last_of_streams(frames)
    factors = torch.ones(len(frames), dtype=torch.float64)
    films: dict[int, list[int]] = {}
    for row, at in enumerate(frames):
        if at not in last:
            films.setdefault(at.talk, []).append(row)
    for rows in films.values():
        share = shares(weights[rows].double(), count)
        factors[rows] = torch.where(drawn(share), 1 / share, 0.0)
    return factors


def shares(weights: Tensor, count: int) -> Tensor:
    """How probable each of weights (N,) is to be drawn: in proportion, 1 at most, `count` in sum.

    Where no more than `count` are above 0, these are drawn for sure.
    """
    sure = torch.zeros_like(weights, dtype=torch.bool)
    if int((weights > 0).sum()) <= count:
        return (weights > 0).to(weights)
    while True:
        others = weights.masked_fill(sure, 0)
        share = torch.where(sure, 1.0, (count - sure.sum()) * others / others.sum())
        above = (share >= 1) & ~sure
        if not above.any():
            return share
        sure |= above


def drawn(share: Tensor) -> Tensor:
    """Which of N are drawn, each with the probability `share` (N,), as many as their sum is.

    One start is drawn and steps of 1 are made from there along the shares, laid end to end in an
    order of chance (systematic sampling; Madow 1949).
    """
    order = torch.randperm(len(share))
    ends = share[order].cumsum(dim=0) - (1 - torch.rand((), dtype=share.dtype))
    steps = ends.floor()
    picked = torch.zeros(len(share), dtype=torch.bool)
    picked[order] = steps > torch.cat([steps.new_full((1,), -1.0), steps[:-1]])
    return picked
