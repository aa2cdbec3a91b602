"""The training stages as LightningModules."""

from typing import TYPE_CHECKING

from mmavlm.core.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.stages.duet import Duet
    from mmavlm.stages.finetune import FineTune
    from mmavlm.stages.group_dro import GroupDRO
    from mmavlm.stages.optim import OptimizerRecipe
    from mmavlm.stages.preference import Preference
    from mmavlm.stages.semantic_alignment import SemanticAlignment

__all__ = [
    "Duet",
    "FineTune",
    "GroupDRO",
    "OptimizerRecipe",
    "Preference",
    "SemanticAlignment",
]

__getattr__, __dir__ = lazy_names(__name__)
