"""Annotation files → items. A reader is called with root, split and task; it also knows classes."""

from mmavlm.data.readers.captions import CaptionReader, WebVidReader
from mmavlm.data.readers.lvu import LVUReader
from mmavlm.data.readers.malmm import LabelReader, QuestionReader, ReferenceReader
from mmavlm.data.readers.own import OwnReader

__all__ = [
    "CaptionReader",
    "LVUReader",
    "LabelReader",
    "OwnReader",
    "QuestionReader",
    "ReferenceReader",
    "WebVidReader",
]
