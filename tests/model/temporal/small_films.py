"""A small memory Q-Former, and random films for it."""

from functools import partial

import torch

from mmavlm.core.interfaces import TextTokens
from mmavlm.model.memory import Average, Fifo, KeepAll, MergeAdjacent
from mmavlm.model.qformer import QFormer
from mmavlm.model.temporal import MemoryQFormer

WIDTH, VISUAL, VOCAB, QUERIES = 24, 16, 50, 4
STRATEGIES = [MergeAdjacent(3), MergeAdjacent(1), Fifo(3), Fifo(0), Average(), KeepAll()]


def build(visual, query=None, *, layers=3, **settings):
    torch.manual_seed(0)
    qformer = partial(
        QFormer, width=WIDTH, layers=layers, heads=4, hidden_width=40, dropout=0.0,
        max_text_tokens=16, init_std=0.3,
    )  # fmt: skip
    return MemoryQFormer(
        qformer=qformer, visual_memory=visual, query_memory=query or visual, visual_width=VISUAL,
        vocab_size=VOCAB, num_query_tokens=QUERIES, **settings,
    )  # fmt: skip


def inputs(seed, batch, frames, ragged, positions=5):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (batch,), generator=draw)
    text = torch.arange(5)[None] < lengths[:, None] if ragged else torch.ones(batch, 5).bool()
    prompt = TextTokens(torch.randint(1, VOCAB, (batch, 5), generator=draw), text)
    tokens = torch.randn(batch, frames, positions, VISUAL, generator=draw)
    lengths = torch.randint(1, frames + 1, (batch,), generator=draw)
    mask = torch.arange(frames)[None] < lengths[:, None] if ragged else torch.ones(batch, frames)
    return tokens, prompt, mask.bool()


def gradients(module, state):
    module.zero_grad()
    direction = torch.linspace(-1, 1, state.video_tokens.numel()).view_as(state.video_tokens)
    (state.video_tokens * direction).sum().backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
