"""Frame tokens → video tokens."""

from mmavlm.temporal.concat import Concat, ConcatState
from mmavlm.temporal.last_look import last_look
from mmavlm.temporal.live import LiveState
from mmavlm.temporal.looks import Looks, Wanted
from mmavlm.temporal.memory_qformer import MemoryQFormer, State
from mmavlm.temporal.state import MemoryQFormerState

__all__ = [
    "Concat",
    "ConcatState",
    "LiveState",
    "Looks",
    "MemoryQFormer",
    "MemoryQFormerState",
    "State",
    "Wanted",
    "last_look",
]
