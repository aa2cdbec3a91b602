"""Which frames of a long film are read: 0, s, 2s, …, with the same s for a stream and a film.

The stride s is the least power of two that leaves at most so many frames. A stream doubles it as
it grows: what it drops then, it never needs again. Shapes: B films, T frames, t some of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Piece(NamedTuple):
    """What was seen in some frames, `outputs` (B,t,…), with their `numbers` and `mask` (B,t)."""

    outputs: Tensor
    numbers: Tensor
    mask: Tensor


def stride_of(frames: int, at_most: int | None) -> int:
    """The stride at which a film of so many frames is read; 1 without a limit."""
    stride = 1
    while at_most is not None and stride * at_most < frames:
        stride *= 2
    return stride


def spaced(tokens: Tensor, mask: Tensor, at_most: int | None) -> Piece:
    """The frames (B,t,…) of films (B,T,…) that are read, each film at its own stride.

    The mask (B,T) is True at a film's own frames, which come first.
    """
    frames = mask.shape[1]
    longest = stride_of(frames, at_most)
    if at_most is None or longest == 1:
        return Piece(tokens, torch.arange(frames, device=mask.device).expand_as(mask), mask)
    lengths = mask.sum(dim=1, keepdim=True)
    strides = torch.ones_like(lengths)
    for stride in (2**k for k in range(1, longest.bit_length())):
        strides[stride // 2 * at_most < lengths] = stride
    numbers = torch.arange(at_most, device=mask.device) * strides
    rows = torch.arange(len(mask), device=mask.device)[:, None]
    chosen = tokens[rows, numbers.clamp(max=frames - 1)]
    return Piece(chosen, numbers, numbers < lengths)


def joined(pieces: Sequence[Piece]) -> Piece:
    """Pieces one behind the other, what is real first in each film."""
    outputs, numbers, mask = (torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True))
    order = (~mask).int().argsort(dim=1, stable=True)
    rows = torch.arange(len(mask), device=mask.device)[:, None]
    return Piece(outputs[rows, order], numbers[rows, order], mask[rows, order])


def wider(pieces: Sequence[Piece], stride: int, at_most: int, growing: Tensor) -> Piece:
    """Pieces as one, at a larger stride where films are still `growing` (B,)."""
    outputs, numbers, mask = (torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True))
    dropped = growing[:, None] & (numbers % stride != 0)
    kept = joined([Piece(outputs, numbers, mask & ~dropped)])
    return Piece(*(part[:, :at_most] for part in kept))
