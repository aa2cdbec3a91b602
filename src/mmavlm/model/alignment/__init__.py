"""Multi-level multimodal alignment: videos and texts drawn together before the LLM reads either."""

from mmavlm.model.alignment.frames import (
    AlignedFrames,
    AllFrames,
    FirstK,
    FirstLast,
    FirstMiddleLast,
)
from mmavlm.model.alignment.hard_negatives import HardNegatives
from mmavlm.model.alignment.levels import Aligned, MultiLevelAlignment
from mmavlm.model.alignment.losses import (
    FalsePairs,
    SigmoidLoss,
    equal_texts_info_nce,
    info_nce,
    sigmoid_loss,
    symmetric_info_nce,
)
from mmavlm.model.alignment.temperature import Temperature

__all__ = [
    "Aligned",
    "AlignedFrames",
    "AllFrames",
    "FalsePairs",
    "FirstK",
    "FirstLast",
    "FirstMiddleLast",
    "HardNegatives",
    "MultiLevelAlignment",
    "SigmoidLoss",
    "Temperature",
    "equal_texts_info_nce",
    "info_nce",
    "sigmoid_loss",
    "symmetric_info_nce",
]
