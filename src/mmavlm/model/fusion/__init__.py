"""Multimodal feature fusion: what prompt and alignment know, added to what the eyes see.

`CrossAttentionFusion`, `FeatureChannelFusion` and `SequenceDimensionFusion` are MMA-MFF's own.
"""

from mmavlm.model.fusion.base import Fusion, Seen
from mmavlm.model.fusion.bidirectional import Bidirectional
from mmavlm.model.fusion.cross_attention import CrossAttentionFusion
from mmavlm.model.fusion.feature_channel import FeatureChannelFusion
from mmavlm.model.fusion.none import NoFusion
from mmavlm.model.fusion.prompt_to_visual import PromptToVisual
from mmavlm.model.fusion.query_to_visual import QueryToVisual
from mmavlm.model.fusion.sequence_dimension import SequenceDimensionFusion

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
