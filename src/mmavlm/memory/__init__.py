"""Memory banks: strategies that keep the past of a film small; state is a value."""

from mmavlm.memory.average import Average
from mmavlm.memory.episodic import EpisodicCompressor
from mmavlm.memory.fifo import Fifo
from mmavlm.memory.keep_all import KeepAll
from mmavlm.memory.merge_adjacent import MergeAdjacent
from mmavlm.memory.shares import frame_shares
from mmavlm.memory.spans import slot_spans
from mmavlm.memory.token_merging import TokenMerging

__all__ = [
    "Average",
    "EpisodicCompressor",
    "Fifo",
    "KeepAll",
    "MergeAdjacent",
    "TokenMerging",
    "frame_shares",
    "slot_spans",
]
