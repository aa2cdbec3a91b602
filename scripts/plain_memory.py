"""The loop of MA-LMM's published code, restated: what scripts/bench_memory.py compares ours with.

It does the work of that code in its order. At every frame each layer projects its whole bank to
keys and values, attends by two products with the scores in memory between them, and appends its
input to its bank. Past M slots it compares all neighbours, copies the bank without the merged slot
and weighs all of it by how many frames a slot holds. In a training step every frame records what
its gradient needs, though only the last one's is used.

Neighbours are compared by the distance of unit entries, not by the product that gives their cosine.
Both order them alike and take the same passes. But rounding hides how a cosine near 1 differs from
another, and would decide what is merged. Left out are the count of frames that the published code
reads back in every layer, and dropout, which is 0 in the benchmark.

Shapes: B films, T frames, P frame tokens of width Dv, N = K queries + prompt tokens, D width, S
slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmavlm.core.interfaces import TextTokens
from mmavlm.model.qformer import AttentionBlock, QFormerLayer
from mmavlm.model.temporal import MemoryQFormer


@dataclass(frozen=True)
class PlainBank:
    """Banked tokens (B,S,N,D) and how many frames each holds (B,S,N)."""

    tokens: Tensor
    counts: Tensor


def plain_loop(
    module: MemoryQFormer, frame_tokens: Tensor, prompt: TextTokens, length: int
) -> Tensor:
    """The video tokens (B,K,D) of films (B,T,P,Dv): weights of `module`, banks of `length`."""
    layers, last = module.qformer.layers, frame_tokens.shape[1] - 1
    queries = module.query_tokens.expand(len(frame_tokens), -1, -1)
    visual: PlainBank | None = None
    banks: list[PlainBank | None] = [None] * len(layers)
    for t, frame in enumerate(frame_tokens.unbind(1)):
        hidden, mask = module.qformer.embeddings(queries, prompt)
        bias = torch.where(mask, 0.0, -10_000.0)[:, None, None, :]
        seen = frame[:, None] if visual is None else torch.cat([visual.tokens, frame[:, None]], 1)
        for i, layer in enumerate(layers):
            given, bank = hidden, banks[i]
            hidden = _through(layer, given, bank, bias, seen.flatten(1, 2), queries.shape[1])
            banks[i] = _banked(bank, given, None if t == last else length)
        visual = _banked(visual, frame, None if t == last else length)
    return hidden[:, : queries.shape[1]]


def _through(
    layer: QFormerLayer,
    hidden: Tensor,
    bank: PlainBank | None,
    bias: Tensor,
    visual_tokens: Tensor,
    num_queries: int,
) -> Tensor:
    """One layer: hidden (B,N,D) attends to bank and itself, its queries to (B,V,Dv) → (B,N,D)."""
    own = layer.attention.attention
    keys, values = own.key(hidden), own.value(hidden)
    if bank is not None:
        past = bank.tokens.flatten(1, 2)
        keys = torch.cat([own.key(past), keys], dim=1)
        values = torch.cat([own.value(past), values], dim=1)
        bias = torch.cat([bias] * (bank.tokens.shape[1] + 1), dim=-1)
    hidden = _attend(layer.attention, hidden, keys, values, bias)
    queries, text = hidden[:, :num_queries], hidden[:, num_queries:]
    if layer.crossattention is not None:
        cross = layer.crossattention.attention
        keys, values = cross.key(visual_tokens), cross.value(visual_tokens)
        queries = _attend(layer.crossattention, queries, keys, values, None)
    queries = layer.output_query(layer.intermediate_query(queries), queries)
    text = layer.output(layer.intermediate(text), text)
    return torch.cat([queries, text], dim=1)


def _attend(
    block: AttentionBlock, hidden: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None
) -> Tensor:
    """Attention whose scores stand in memory: (B,N,D) to keys and values (B,V,D) → (B,N,D)."""
    query, key, value = (
        tokens.unflatten(-1, (block.heads, -1)).transpose(1, 2)
        for tokens in (block.attention.query(hidden), keys, values)
    )
    scores = query @ key.mT / query.shape[-1] ** 0.5
    if bias is not None:
        scores = scores + bias
    mixed = scores.softmax(dim=-1) @ value
    return block.output(mixed.transpose(1, 2).flatten(2), hidden)


def _banked(bank: PlainBank | None, tokens: Tensor, length: int | None) -> PlainBank:
    """The bank with `tokens` (B,N,D) behind it, merged to `length` slots unless that is None."""
    entry = tokens.detach()[:, None]
    ones = torch.ones_like(entry[..., 0])
    if bank is None:
        return PlainBank(entry, ones)
    longer = PlainBank(
        torch.cat([bank.tokens, entry], dim=1), torch.cat([bank.counts, ones], dim=1)
    )
    if length is None or longer.tokens.shape[1] <= length:
        return longer
    return _merged(longer)


def _merged(bank: PlainBank) -> PlainBank:
    """At each position the most similar neighbours become their mean: (B,S,N,D) → (B,S−1,N,D)."""
    width = bank.tokens.shape[-1]
    unit = F.normalize(bank.tokens, dim=-1)
    apart = (unit[:, :-1] - unit[:, 1:]).square().sum(-1)
    left = apart.argmin(dim=1, keepdim=True)
    kept = torch.arange(apart.shape[1], device=left.device)[None, :, None]
    kept = kept + (kept > left)

    def weighed(slots: Tensor) -> tuple[Tensor, Tensor]:
        counts = bank.counts.gather(1, slots)
        tokens = bank.tokens.gather(1, slots[..., None].expand(-1, -1, -1, width))
        return tokens * counts[..., None], counts

    tokens, counts = weighed(kept)
    gone, gone_counts = weighed(left + 1)
    tokens = tokens.scatter_add(1, left[..., None].expand(-1, -1, -1, width), gone)
    counts = counts.scatter_add(1, left, gone_counts)
    return PlainBank(tokens / counts[..., None], counts)
