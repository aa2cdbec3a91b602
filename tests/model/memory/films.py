"""Films for the tests of memories, and how a memory watches one."""

import torch

from mmavlm.core.interfaces import Memory, MemoryState


def run(memory: Memory, frames: torch.Tensor, mask: torch.Tensor | None = None) -> MemoryState:
    """Feed frames (B,T,N,D) and compress before each append and once at the end."""
    mask = torch.ones(frames.shape[:2], dtype=torch.bool) if mask is None else mask
    state = memory.init(frames[:, 0])
    for t in range(frames.shape[1]):
        state = memory.append(memory.compress(state), frames[:, t], mask[:, t])
    return memory.compress(state)


def random_frames(shape, seed):
    """Frames of this shape, of width 2 at least: cosines of numbers are ±1 and all tie."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    """Cosine similarity of two vectors, rounded as the memories round it."""
    return round(float(torch.cosine_similarity(a.double(), b.double(), dim=0)) * 2**20)
