"""Which frames a slot holds, read off the counts alone."""

from __future__ import annotations

from torch import Tensor

from mmavlm.core.interfaces import MemoryState


def slot_spans(state: MemoryState) -> tuple[Tensor, Tensor]:
    """First frame (inclusive) and last frame (exclusive) of every slot, each (B,S,N) int64.

    For strategies that merge neighbours alone (not EpisodicCompressor, TokenMerging): their slots
    hold runs of frames, and what is missing from the counts was forgotten at the front. Empty
    slots have equal first and last.
    """
    end = state.counts.cumsum(dim=1)
    forgotten = state.seen[:, None, None] - end[:, -1:]
    end = end + forgotten
    return (end - state.counts).long(), end.long()
