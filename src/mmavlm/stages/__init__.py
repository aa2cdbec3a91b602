"""The two training stages as LightningModules."""

from mmavlm.stages.finetune import FineTune
from mmavlm.stages.optim import OptimizerRecipe
from mmavlm.stages.semantic_alignment import SemanticAlignment

__all__ = ["FineTune", "OptimizerRecipe", "SemanticAlignment"]
