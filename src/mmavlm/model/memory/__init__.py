"""Memory banks: strategies that keep the past of a film small; state is a value."""

from mmavlm.model.memory.average import Average
from mmavlm.model.memory.episodic import EpisodicCompressor
from mmavlm.model.memory.fifo import Fifo
from mmavlm.model.memory.keep_all import KeepAll
from mmavlm.model.memory.merge_adjacent import MergeAdjacent
from mmavlm.model.memory.shares import frame_shares
from mmavlm.model.memory.spans import slot_spans
from mmavlm.model.memory.token_merging import TokenMerging

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
