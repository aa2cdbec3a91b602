"""Query outputs look at the visual bank once more before the projector (after MMA-MFF)."""

from __future__ import annotations

from einops import rearrange, repeat
from torch import Tensor

from mmavlm.fusion.base import Fusion
from mmavlm.fusion.cross_attention import CrossAttention


class QueryToVisual(Fusion):
    """The aligned query outputs attend to the banked frame tokens and add what they read.

    Raises:
        ConfigError: if `heads` does not divide `query_width`.
    """

    def __init__(
        self, visual_width: int, query_width: int, heads: int = 8, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.attention = CrossAttention(query_width, visual_width, heads=heads, dropout=dropout)

    def after(self, query_outputs: Tensor, bank_tokens: Tensor, bank_mask: Tensor) -> Tensor:
        """Query outputs (B,K,D), each with what it reads in the bank (B,S,P,Dv), masked (B,S)."""
        bank = rearrange(bank_tokens, "b s p dv -> b (s p) dv")
        mask = repeat(bank_mask, "b s -> b (s p)", p=bank_tokens.shape[2])
        return self.attention(query_outputs, bank, mask)
