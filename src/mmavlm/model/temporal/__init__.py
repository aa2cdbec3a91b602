"""Frame tokens → video tokens."""

from mmavlm.model.temporal.concat import Concat
from mmavlm.model.temporal.each_frame import EachFrame, FrameLooks
from mmavlm.model.temporal.last_look import last_look
from mmavlm.model.temporal.live import LiveState
from mmavlm.model.temporal.looks import Looks, Wanted
from mmavlm.model.temporal.memory_qformer import MemoryQFormer, State
from mmavlm.model.temporal.queries import GuidedQueries
from mmavlm.model.temporal.state import MemoryQFormerState

__all__ = [
    "Concat",
    "EachFrame",
    "FrameLooks",
    "GuidedQueries",
    "LiveState",
    "Looks",
    "MemoryQFormer",
    "MemoryQFormerState",
    "State",
    "Wanted",
    "last_look",
]
