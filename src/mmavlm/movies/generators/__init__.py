"""Who writes and who draws: text and image generators behind two Protocols."""

from typing import TYPE_CHECKING

from mmavlm.core.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.movies.frames import FrameSpec, ImageGenerator
    from mmavlm.movies.generators.grammar import Grammar
    from mmavlm.movies.generators.procedural import ProceduralImages
    from mmavlm.movies.generators.text import TextGenerator, TextRequest, TextResult, ask

__all__ = [
    "FrameSpec",
    "Grammar",
    "ImageGenerator",
    "ProceduralImages",
    "TextGenerator",
    "TextRequest",
    "TextResult",
    "ask",
]

__getattr__, __dir__ = lazy_names(__name__)
