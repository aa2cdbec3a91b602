"""The mean over frames: the plainest way to make one look of many."""

from __future__ import annotations

import torch
from torch import Tensor

from mmavlm.model.temporal.concat import Concat
from mmavlm.model.temporal.each_frame import EachFrame, FrameLooks


class Average(Concat):
    """Query tokens that look at each frame alone; the mean of the looks are the video tokens.

    Parameters have the names of `MemoryQFormer`'s, so weights of either load into the other.
    """

    looks_at = EachFrame.looks_at
    read = EachFrame.read
    mask = EachFrame.mask
    frames_of = EachFrame.frames_of

    def join(self, state: FrameLooks, lengths: Tensor) -> Tensor:
        """The mean (B,F,K,D) over the first `lengths` (B,F) frames."""
        seen = state.outputs
        rows = torch.arange(len(lengths), device=lengths.device)[:, None]
        lengths = lengths.clamp(min=1)
        return seen.cumsum(dim=1)[rows, lengths - 1] / lengths[:, :, None, None]
