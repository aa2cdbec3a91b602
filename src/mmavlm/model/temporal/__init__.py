"""Frame tokens → video tokens."""

from mmavlm.model.temporal.average import Average
from mmavlm.model.temporal.clip_qformer import ClipQFormer
from mmavlm.model.temporal.concat import Concat
from mmavlm.model.temporal.context_content import ContextContent, WordsContent
from mmavlm.model.temporal.each_frame import EachFrame, FrameLooks
from mmavlm.model.temporal.every_frame import EveryFrame
from mmavlm.model.temporal.last_look import last_look
from mmavlm.model.temporal.live import LiveState
from mmavlm.model.temporal.looks import Looks, Wanted
from mmavlm.model.temporal.memory_qformer import MemoryQFormer, State
from mmavlm.model.temporal.queries import GuidedQueries
from mmavlm.model.temporal.state import MemoryQFormerState
from mmavlm.model.temporal.video_qformer import VideoQFormer

__all__ = [
    "Average",
    "ClipQFormer",
    "Concat",
    "ContextContent",
    "EachFrame",
    "EveryFrame",
    "FrameLooks",
    "GuidedQueries",
    "LiveState",
    "Looks",
    "MemoryQFormer",
    "MemoryQFormerState",
    "State",
    "VideoQFormer",
    "Wanted",
    "WordsContent",
    "last_look",
]
