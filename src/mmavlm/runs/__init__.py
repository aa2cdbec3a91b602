"""What a run checks before it starts, shows while it goes, and leaves behind."""

from mmavlm.runs.benchmarks import BenchmarkScores, HallucinationProbe
from mmavlm.runs.checkpoint_files import WholeCheckpoints
from mmavlm.runs.devices import check_accelerator
from mmavlm.runs.explanations import ExplainAnswers
from mmavlm.runs.finite import FiniteGuard
from mmavlm.runs.loggers import check_loggers
from mmavlm.runs.monitor import monitor_told
from mmavlm.runs.out_of_memory import is_out_of_memory, memory_told
from mmavlm.runs.overview import MemoryEstimate, ModelOverview, estimate_memory
from mmavlm.runs.sharding import FrozenShardsStrategy
from mmavlm.runs.step_checkpoint import StepCheckpoint
from mmavlm.runs.sweep import SweepTable
from mmavlm.runs.wait import LoaderWait

__all__ = [
    "BenchmarkScores",
    "ExplainAnswers",
    "FiniteGuard",
    "FrozenShardsStrategy",
    "HallucinationProbe",
    "LoaderWait",
    "MemoryEstimate",
    "ModelOverview",
    "StepCheckpoint",
    "SweepTable",
    "WholeCheckpoints",
    "check_accelerator",
    "check_loggers",
    "estimate_memory",
    "is_out_of_memory",
    "memory_told",
    "monitor_told",
]
