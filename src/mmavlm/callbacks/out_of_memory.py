"""Memory that ran out: what a step was estimated to take, and what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
import torch

from mmavlm.callbacks.overview import shown_bytes, step_estimate
from mmavlm.core.errors import NoMemoryError

# What torch says on a CPU, in a RuntimeError like any other.
SAID_BY_TORCH = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in SAID_BY_TORCH)


@contextmanager
def memory_told(trainer: L.Trainer, stage: L.LightningModule) -> Iterator[None]:
    """Say of memory that runs out what the steps of `stage` take, and what to lower.

    Raises:
        NoMemoryError: in place of torch's and Python's own errors.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise NoMemoryError(_message(trainer, stage, error)) from error


def _message(trainer: L.Trainer, stage: L.LightningModule, error: BaseException) -> str:
    estimate, free = step_estimate(trainer, stage)
    said = next((line for line in str(error).splitlines() if "memory" in line), "no memory")
    lower = [
        f"data.batch_size ({getattr(trainer.datamodule, 'batch_size', '?')}), with "  # type: ignore[attr-defined]
        "trainer.accumulate_grad_batches raised as much for equal steps",
        "data.eval_batch_size, if it was validation or test",
        "data.num_frames",
        "data.num_workers, if workers hold much",
    ]
    if hasattr(stage, "grad_cache_chunk"):
        lower.append("stage.grad_cache_chunk, the rows that hold activations at a time")
    return (
        f"out of memory on {trainer.strategy.root_device}: {said.strip()}\n"
        f"a training step was estimated to take {estimate}; {shown_bytes(free)} are free now\n"
        "lower " + "; ".join(lower) + "; or set qformer.gradient_checkpointing=true, "
        "llm.gradient_checkpointing=true, trainer.precision=bf16-mixed, or trainer=fsdp on "
        "several GPUs"
    )
