"""The memory Q-Former that benchmarks run, and random films for it.

At full size: ViT-g frame tokens (257×1408), 12 layers of width 768, 32 query tokens, 12 words.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from mmavlm.core.interfaces import Memory, TextTokens
from mmavlm.model.memory import EpisodicCompressor, Fifo, MergeAdjacent, TokenMerging
from mmavlm.model.qformer import QFormer
from mmavlm.model.temporal import MemoryQFormer

Film = tuple[Tensor, TextTokens, Tensor]  # frame tokens, prompt, mask
# Visual and query memory, by the names of conf/memory.
MEMORIES: dict[str, Callable[[int], tuple[Memory, Memory]]] = {
    "merge_adjacent": lambda length: (MergeAdjacent(length), MergeAdjacent(length)),
    "fifo": lambda length: (Fifo(length), Fifo(length)),
    "episodic": lambda length: (EpisodicCompressor(length), EpisodicCompressor(length, "position")),
    "token_merging": lambda length: (TokenMerging(length), TokenMerging(length, "time")),
}
SIZES = {
    "full": {"positions": 257, "visual": 1408, "width": 768, "layers": 12, "heads": 12},
    "small": {"positions": 16, "visual": 64, "width": 64, "layers": 2, "heads": 4},
}


def build(options: argparse.Namespace, cache_keys: bool) -> MemoryQFormer:
    """The module under test; equal weights whatever `cache_keys`."""
    torch.manual_seed(0)
    size = SIZES[options.size]
    qformer = partial(
        QFormer,
        width=size["width"],
        layers=size["layers"],
        heads=size["heads"],
        hidden_width=4 * size["width"],
        dropout=0.0,
    )
    visual_memory, query_memory = MEMORIES[options.memory](options.bank)
    module = MemoryQFormer(
        qformer=qformer,
        visual_memory=visual_memory,
        query_memory=query_memory,
        visual_width=size["visual"],
        vocab_size=30522,
        cache_keys=cache_keys,
    )
    return module.to(options.device)


def film(options: argparse.Namespace, frames: int) -> Film:
    """Frame tokens that drift from scene to scene, a prompt of 12 words, and a full mask."""
    size = SIZES[options.size]
    generator = torch.Generator().manual_seed(1)
    shape = (options.batch, size["positions"], size["visual"])
    tokens = torch.empty(options.batch, frames, *shape[1:])
    scene = torch.randn(shape, generator=generator)
    for t in range(frames):
        scene = 0.9 * scene + 0.44 * torch.randn(shape, generator=generator)
        tokens[:, t] = scene
    ids = torch.randint(1, 30522, (options.batch, 12), generator=generator)
    prompt = TextTokens(
        ids.to(options.device), torch.ones_like(ids, dtype=torch.bool).to(options.device)
    )
    mask = torch.ones(options.batch, frames, dtype=torch.bool)
    return tokens.to(options.device), prompt, mask.to(options.device)
