"""Multimodal feature fusion: what prompt and queries know, added to what the eyes see."""

from mmavlm.fusion.base import Fusion
from mmavlm.fusion.bidirectional import Bidirectional
from mmavlm.fusion.none import NoFusion
from mmavlm.fusion.prompt_to_visual import PromptToVisual
from mmavlm.fusion.query_to_visual import QueryToVisual

__all__ = ["Bidirectional", "Fusion", "NoFusion", "PromptToVisual", "QueryToVisual"]
