"""The attention that our own fusions share, and the check of its heads."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mmavlm.core.errors import ConfigError


def check_heads(heads: int, width: int) -> None:
    """Refuse a number of heads among which the width of the tokens cannot be divided.

    Raises:
        ConfigError: naming both.
    """
    if heads < 1 or width % heads:
        raise ConfigError(
            f"fusion.heads is {heads}, which does not divide the width {width} of the tokens "
            "that attend; choose a divisor of it"
        )


class CrossAttention(nn.Module):
    """Multi-head cross-attention from tokens of `width` to a context, with a residual.

    Keys and values are projected from `context_width` to `width`; dropout acts on attention
    weights. With `gated`, what is read is scaled by tanh of a learned gate that starts at zero, so
    that the block starts as the identity (Flamingo, section 2.2).

    Raises:
        ConfigError: if `width` cannot be divided among the heads.
    """

    def __init__(
        self,
        width: int,
        context_width: int,
        *,
        heads: int = 8,
        dropout: float = 0.1,
        gated: bool = False,
    ) -> None:
        super().__init__()
        check_heads(heads, width)
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)
        self.output = nn.Linear(width, width)
        self.gate = nn.Parameter(torch.zeros(1)) if gated else None

    def forward(self, tokens: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """`tokens` (B,N,width) plus what each reads in `context` (B,C,context_width).

        `context_mask` (B,C) is True on what may be read, at least one entry a row.
        """
        query, key, value = (
            rearrange(projected, "b n (heads d) -> b heads n d", heads=self.heads)
            for projected in (self.query(tokens), self.key(context), self.value(context))
        )
        read = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=context_mask[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        read = self.output(rearrange(read, "b heads n d -> b n (heads d)"))
        return tokens + (read if self.gate is None else self.gate.tanh() * read)
