"""What goes into the frame loop and what it carries from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmavlm.interfaces import MemoryState


@dataclass(frozen=True)
class MemoryQFormerState:
    """All that is carried from frame to frame.

    `hidden` (B,N,D) and `mask` (B,N) are the embedded query tokens and prompt, `video_tokens`
    (B,K,D) the query outputs after the latest frame. The query bank holds the self-attention
    inputs of all layers side by side, as positions of one bank: (B,S,layers·N,D).
    """

    hidden: Tensor
    mask: Tensor
    visual_bank: MemoryState
    query_bank: MemoryState
    video_tokens: Tensor


@dataclass(frozen=True)
class Film:
    """Frame tokens (B,T,P,Dv) and mask (B,T), to be seen in `order` (B,T).

    `ragged` says that some rows are padded; where none is, the order is as they stand.
    """

    tokens: Tensor
    mask: Tensor
    order: Tensor
    ragged: bool

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
