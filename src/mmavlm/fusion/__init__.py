"""Multimodal feature fusion: what prompt and alignment know, added to what the eyes see.

`CrossAttentionFusion`, `FeatureChannelFusion` and `SequenceDimensionFusion` are MMA-MFF's own.
"""

from mmavlm.fusion.base import Fusion, Seen
from mmavlm.fusion.bidirectional import Bidirectional
from mmavlm.fusion.cross_attention import CrossAttentionFusion
from mmavlm.fusion.feature_channel import FeatureChannelFusion
from mmavlm.fusion.none import NoFusion
from mmavlm.fusion.prompt_to_visual import PromptToVisual
from mmavlm.fusion.query_to_visual import QueryToVisual
from mmavlm.fusion.sequence_dimension import SequenceDimensionFusion

__all__ = [
    "Bidirectional",
    "CrossAttentionFusion",
    "FeatureChannelFusion",
    "Fusion",
    "NoFusion",
    "PromptToVisual",
    "QueryToVisual",
    "Seen",
    "SequenceDimensionFusion",
]
