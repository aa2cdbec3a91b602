"""Frame tokens → video tokens."""

from mmavlm.temporal.memory_qformer import MemoryQFormer, MemoryQFormerState

__all__ = ["MemoryQFormer", "MemoryQFormerState"]
