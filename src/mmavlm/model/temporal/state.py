"""What goes into the frame loop and what it carries from frame to frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmavlm.core.interfaces import MemoryState

S = TypeVar("S")


@dataclass(frozen=True)
class MemoryQFormerState:
    """All that is carried from frame to frame.

    `hidden` (B,N,D) and `mask` (B,N) are the embedded query tokens and prompt, `video_tokens`
    (B,K,D) the query outputs after the latest frame. The query bank holds the self-attention
    inputs of all layers side by side, as positions of one bank: (B,S,layers·N,D). `crossed`
    (B,C,K,D) are the query tokens of the latest frame right behind the cross-attention of C layers,
    where these were asked for.
    """

    hidden: Tensor
    mask: Tensor
    visual_bank: MemoryState
    query_bank: MemoryState
    video_tokens: Tensor
    crossed: Tensor | None = None

    def rows(self, which: list[int]) -> MemoryQFormerState:
        """Some of the rows."""
        parts = {f.name: _rows(getattr(self, f.name), which) for f in fields(self)}
        return MemoryQFormerState(**parts)

    @classmethod
    def of_rows(cls, parts: dict[int, MemoryQFormerState]) -> MemoryQFormerState:
        """The states of single rows, by their numbers, as one, without what was `crossed`.

        Shorter banks begin with empty slots.
        """
        states = [parts[row] for row in sorted(parts)]
        return cls(
            hidden=torch.cat([state.hidden for state in states]),
            mask=torch.cat([state.mask for state in states]),
            visual_bank=_stacked([state.visual_bank for state in states]),
            query_bank=_stacked([state.query_bank for state in states]),
            video_tokens=torch.cat([state.video_tokens for state in states]),
        )


@dataclass(frozen=True)
class Film:
    """Frame tokens (B,T,P,Dv) and mask (B,T), to be seen in `order` (B,T).

    `ragged` says that some rows are padded; where none is, the order is as they stand. `layers` are
    those behind whose cross-attention the query tokens are wanted, too.
    """

    tokens: Tensor
    mask: Tensor
    order: Tensor
    ragged: bool
    layers: tuple[int, ...] = ()

    @classmethod
    def from_the_start(cls, tokens: Tensor, mask: Tensor, layers: tuple[int, ...] = ()) -> Film:
        """All rows begin at the first step, and shorter ones end before the last."""
        order = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        return cls(tokens, mask, order, not bool(mask.all()), layers)

    @classmethod
    def to_the_end(cls, tokens: Tensor, mask: Tensor, layers: tuple[int, ...] = ()) -> Film:
        """All rows end at the last step, and shorter ones begin later.

        So one step with gradient serves films of different length.
        """
        # A stable sort of the mask keeps their frames in order.
        order = mask.int().argsort(dim=1, stable=True)
        return cls(tokens, mask, order, not bool(mask.all()), layers)

    @property
    def length(self) -> int:
        """T."""
        return self.order.shape[1]

    def frames(self, first: int, stop: int) -> Tensor:
        """The frame tokens of steps `first` to `stop`, (B,stop−first,P,Dv)."""
        if not self.ragged:
            return self.tokens[:, first:stop]
        rows = torch.arange(len(self.order), device=self.order.device)[:, None]
        return self.tokens[rows, self.order[:, first:stop]]

    def masks(self, first: int, stop: int) -> Tensor:
        """The mask of steps `first` to `stop`, (B,stop−first)."""
        return self.mask.gather(1, self.order[:, first:stop])

    def frame(self, t: int) -> tuple[Tensor, Tensor]:
        """Tokens (B,P,Dv) and mask (B,) of step `t`."""
        return self.frames(t, t + 1)[:, 0], self.masks(t, t + 1)[:, 0]

    def steps(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Tokens (B,P,Dv) and mask (B,) of all steps, one after the other."""
        return map(self.frame, range(self.length))


def walk(
    frames: Iterable[tuple[Tensor, Tensor]],
    start: Callable[[Tensor], S],
    step: Callable[[S, Tensor, Tensor], S],
) -> Iterator[S]:
    """The state after each of `frames`, tokens (B,P,Dv) and mask (B,); it starts with the first."""
    state: S | None = None
    for tokens, mask in frames:
        state = step(start(tokens) if state is None else state, tokens, mask)
        yield state


def watch(
    frames: Iterable[Tensor],
    start: Callable[[Tensor], S],
    step: Callable[[S, Tensor, Tensor], S],
) -> Iterator[S]:
    """The state after each of `frames` (B,P,Dv) as they come to all rows, without gradient."""
    quietly = torch.no_grad()
    everyone = ((frame, torch.ones_like(frame[:, 0, 0], dtype=torch.bool)) for frame in frames)
    return walk(everyone, quietly(start), quietly(step))


def beside(old: MemoryState, new: MemoryState, taken: Tensor) -> MemoryState:
    """The new bank in rows that have `taken` (B,) an entry, the old one in the others."""
    slots = max(old.tokens.shape[1], new.tokens.shape[1])
    old, new = _widened(old, slots), _widened(new, slots)
    return MemoryState(
        tokens=torch.where(taken[:, None, None, None], new.tokens, old.tokens),
        counts=torch.where(taken[:, None, None], new.counts, old.counts),
        seen=new.seen,
    )


def _rows(value: Any, which: list[int]) -> Any:
    if isinstance(value, MemoryState):
        return MemoryState(value.tokens[which], value.counts[which], value.seen[which])
    return None if value is None else value[which]


def _stacked(banks: list[MemoryState]) -> MemoryState:
    """The rows of several banks in one; shorter banks begin with empty slots."""
    slots = max(bank.tokens.shape[1] for bank in banks)
    banks = [_widened(bank, slots) for bank in banks]
    return MemoryState(
        tokens=torch.cat([bank.tokens for bank in banks]),
        counts=torch.cat([bank.counts for bank in banks]),
        seen=torch.cat([bank.seen for bank in banks]),
    )


def _widened(bank: MemoryState, slots: int) -> MemoryState:
    """A bank of so many slots, the first of which are empty."""
    missing = slots - bank.tokens.shape[1]

    def padded(tensor: Tensor) -> Tensor:
        return F.pad(tensor, (0, 0) * (tensor.ndim - 2) + (missing, 0))

    return MemoryState(padded(bank.tokens), padded(bank.counts), bank.seen)
