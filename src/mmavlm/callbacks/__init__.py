"""What joins Lightning's trainer: callbacks, a strategy, checks before it starts."""

from typing import TYPE_CHECKING

from mmavlm.core.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.callbacks.benchmarks import BenchmarkScores, HallucinationProbe
    from mmavlm.callbacks.checkpoint_files import WholeCheckpoints
    from mmavlm.callbacks.decodings import Decodings
    from mmavlm.callbacks.devices import check_trainer
    from mmavlm.callbacks.explanations import ExplainAnswers
    from mmavlm.callbacks.finite import FiniteGuard
    from mmavlm.callbacks.habit import HabitScores
    from mmavlm.callbacks.loggers import (
        check_loggers,
        end_wandb,
        failure_ends_wandb,
        wandb_to_end,
    )
    from mmavlm.callbacks.monitor import monitor_told
    from mmavlm.callbacks.out_of_memory import is_out_of_memory, memory_told
    from mmavlm.callbacks.overview import MemoryEstimate, ModelOverview, estimate_memory
    from mmavlm.callbacks.pictures import LoggedPictures
    from mmavlm.callbacks.ray_workers import ray_environment, ray_strategy
    from mmavlm.callbacks.sharding import FrozenShardsStrategy
    from mmavlm.callbacks.signals import ended_as_asked
    from mmavlm.callbacks.step_checkpoint import StepCheckpoint
    from mmavlm.callbacks.throughput import Throughput
    from mmavlm.callbacks.wait import LoaderWait

__all__ = [
    "BenchmarkScores",
    "Decodings",
    "ExplainAnswers",
    "FiniteGuard",
    "FrozenShardsStrategy",
    "HabitScores",
    "HallucinationProbe",
    "LoaderWait",
    "LoggedPictures",
    "MemoryEstimate",
    "ModelOverview",
    "StepCheckpoint",
    "Throughput",
    "WholeCheckpoints",
    "check_loggers",
    "check_trainer",
    "end_wandb",
    "ended_as_asked",
    "estimate_memory",
    "failure_ends_wandb",
    "is_out_of_memory",
    "memory_told",
    "monitor_told",
    "ray_environment",
    "ray_strategy",
    "wandb_to_end",
]

__getattr__, __dir__ = lazy_names(__name__)
