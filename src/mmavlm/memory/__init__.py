"""Memory banks: strategies that keep the past of a film small; state is a value."""

from mmavlm.memory.average import Average
from mmavlm.memory.fifo import Fifo
from mmavlm.memory.keep_all import KeepAll
from mmavlm.memory.merge_adjacent import MergeAdjacent
from mmavlm.memory.spans import slot_spans

__all__ = ["Average", "Fifo", "KeepAll", "MergeAdjacent", "slot_spans"]
