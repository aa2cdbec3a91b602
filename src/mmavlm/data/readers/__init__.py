"""Annotation files → items. A reader is called with root, split and task; it also knows classes."""

from typing import TYPE_CHECKING

from mmavlm.core.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.data.readers.avhbench import AVHBenchReader
    from mmavlm.data.readers.captions import CaptionReader, WebVidReader
    from mmavlm.data.readers.charades_sta import CharadesSTAReader
    from mmavlm.data.readers.conversations import ConversationReader
    from mmavlm.data.readers.dense_captions import DenseCaptionReader
    from mmavlm.data.readers.elv_halluc import ELVHallucReader
    from mmavlm.data.readers.eventhallusion import EventHallusionReader
    from mmavlm.data.readers.grounding import GroundingReader
    from mmavlm.data.readers.hallusionbench import HallusionBenchReader
    from mmavlm.data.readers.haven import HavenReader
    from mmavlm.data.readers.heard import HeardReader
    from mmavlm.data.readers.instructions import LlavaReader, VideoChatReader
    from mmavlm.data.readers.lvu import LVUReader
    from mmavlm.data.readers.magqa import MAGQAReader
    from mmavlm.data.readers.malmm import LabelReader, QuestionReader, ReferenceReader
    from mmavlm.data.readers.movies import MovieReader
    from mmavlm.data.readers.omnivchall import OmniVCHallReader
    from mmavlm.data.readers.own import OwnReader
    from mmavlm.data.readers.paired import MiniGPT4Reader, SoundReader
    from mmavlm.data.readers.pope import PopeReader
    from mmavlm.data.readers.qvhighlights import QVHighlightsReader
    from mmavlm.data.readers.saved_rows import SavedRowsReader
    from mmavlm.data.readers.videohallucer import VideoHallucerReader
    from mmavlm.data.readers.vidhalluc import VidHallucReader
    from mmavlm.data.readers.youcook2 import YouCook2Reader

__all__ = [
    "AVHBenchReader",
    "CaptionReader",
    "CharadesSTAReader",
    "ConversationReader",
    "DenseCaptionReader",
    "ELVHallucReader",
    "EventHallusionReader",
    "GroundingReader",
    "HallusionBenchReader",
    "HavenReader",
    "HeardReader",
    "LVUReader",
    "LabelReader",
    "LlavaReader",
    "MAGQAReader",
    "MiniGPT4Reader",
    "MovieReader",
    "OmniVCHallReader",
    "OwnReader",
    "PopeReader",
    "QVHighlightsReader",
    "QuestionReader",
    "ReferenceReader",
    "SavedRowsReader",
    "SoundReader",
    "VidHallucReader",
    "VideoChatReader",
    "VideoHallucerReader",
    "WebVidReader",
    "YouCook2Reader",
]

__getattr__, __dir__ = lazy_names(__name__)
