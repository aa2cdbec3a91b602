"""Attention of few queries to many keys, without gradient, film frame after film frame.

torch's fused kernel for the CPU is made for many queries: with 32 of them and 5397 keys, two plain
products and a softmax in memory that is used again take half the time (docs/benchmarks.md).

Keys may come in stretches, each of which all frames attend to before the next one: then a stretch
stays in the processor's cache, where the keys of a whole bank would not. What is found in each is
put together by its share of the softmax.

Shapes: T frames, B films, h heads, N queries, V keys, d width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

KeyValue = tuple[Tensor, Tensor]  # projected keys and values of h heads, each (B,h,V,d)
Bank = tuple[KeyValue, Tensor | None]  # and the mask (B,V) of those to attend to


def fits(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of this dtype on this device are made here, not by torch's fused kernel."""
    return device.type == "cpu" and dtype in (torch.float32, torch.float64)


class FewQueries:
    """Scaled dot-product attention that keeps the memory of its scores from call to call."""

    def __init__(self, dropout: float = 0.0) -> None:
        self.dropout = dropout
        self._memory: Tensor | None = None

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """(B,h,N,d) attends to (B,h,V,d) where `mask` (B,V) is True → (B,h,N,d)."""
        if not fits(query.device, query.dtype):
            mask = None if mask is None else mask[:, None, None, :]
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=self.dropout
            )
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        self._attend(_scaled(query), ((key, value), mask), out, None)
        return out

    def over_frames(self, queries: Tensor, stretches: Sequence[Iterable[Bank]]) -> Tensor:
        """Frames (T,B,h,N,d) each attend to a bank of every stretch → (T,B,h,N,d).

        There is more than one stretch only where products are made here (`fits`).
        """
        if len(stretches) == 1:
            (banks,) = stretches
            looks = zip(queries, banks, strict=True)
            return torch.stack([self(query, *keys, mask) for query, (keys, mask) in looks])
        out, found = (torch.empty_like(queries) for _ in range(2))
        weight, share = (queries.new_empty(*queries.shape[:-1], 1) for _ in range(2))
        queries = _scaled(queries)
        for number, banks in enumerate(stretches):
            into = (found, share) if number else (out, weight)
            for query, bank, *places in zip(queries, banks, *into, strict=True):
                self._attend(query, bank, *places)
            if number:
                both = torch.logaddexp(weight, share)
                out.lerp_(found, (share - both).exp_())
                weight = both
        return out

    def _attend(self, query: Tensor, bank: Bank, out: Tensor, weight: Tensor | None) -> None:
        """Write what (B,h,N,d) finds into `out`, and into `weight` (B,h,N,1) the log of its part.

        That is the sum of the exponentials of the scores. The query is scaled already.
        """
        (key, value), mask = bank
        # a row at a time, because keys of several rows in a bank would be copied to be one batch
        for row in range(len(query)):
            scores = self._scores(query[row], key[row])
            if mask is not None:
                scores.masked_fill_(~mask[row], -torch.inf)
            if weight is not None:
                torch.amax(scores, dim=-1, keepdim=True, out=weight[row])
            torch.softmax(scores, dim=-1, out=scores)
            if weight is not None:  # the highest score's share of the sum is the inverse of it
                weight[row].sub_(scores.amax(dim=-1, keepdim=True).log_())
            if self.dropout:
                F.dropout(scores, self.dropout, inplace=True)
            torch.bmm(scores, value[row], out=out[row])

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        shape = (*query.shape[:2], key.shape[1])
        size = shape[0] * shape[1] * shape[2]
        if self._memory is None or self._memory.numel() < size:
            self._memory = query.new_empty(size)
        scores = self._memory[:size].view(shape)
        return torch.bmm(query, key.transpose(1, 2), out=scores)


def _scaled(query: Tensor) -> Tensor:
    return query * query.shape[-1] ** -0.5
