"""Attention of few queries to many keys, without gradient, film frame after film frame.

torch's fused kernel for the CPU is made for many queries: with 32 of them and 5397 keys, two plain
products and a softmax in memory that is used again take half the time (docs/benchmarks.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class FewQueries:
    """Scaled dot-product attention that keeps the memory of its scores from call to call."""

    def __init__(self, dropout: float = 0.0) -> None:
        self.dropout = dropout
        self._memory: Tensor | None = None

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """(B,h,N,d) attends to (B,h,V,d) where `mask` (B,V) is True → (B,h,N,d)."""
        if query.device.type != "cpu" or query.dtype not in (torch.float32, torch.float64):
            mask = None if mask is None else mask[:, None, None, :]
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=self.dropout
            )
        query = query * query.shape[-1] ** -0.5
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        # a row at a time, because keys of several rows in a bank would be copied to be one batch
        for row in range(len(query)):
            scores = self._scores(query[row], key[row])
            if mask is not None:
                scores.masked_fill_(~mask[row], -torch.inf)
            torch.softmax(scores, dim=-1, out=scores)
            if self.dropout:
                F.dropout(scores, self.dropout, inplace=True)
            torch.bmm(scores, value[row], out=out[row])
        return out

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        shape = (*query.shape[:2], key.shape[1])
        size = shape[0] * shape[1] * shape[2]
        if self._memory is None or self._memory.numel() < size:
            self._memory = query.new_empty(size)
        scores = self._memory[:size].view(shape)
        return torch.bmm(query, key.transpose(1, 2), out=scores)
