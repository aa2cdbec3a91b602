"""Query outputs look at the visual bank once more before the projector (after MMA-MFF)."""

from __future__ import annotations

from torch import Tensor

from mmavlm.model.fusion.attention import CrossAttention
from mmavlm.model.fusion.base import Fusion, Seen, bank_of


class QueryToVisual(Fusion):
    """The aligned query outputs attend to the banked frame tokens and add what they read.

    Raises:
        ConfigError: if `heads` does not divide `query_width`.
    """

    def __init__(
        self,
        visual_width: int,
        query_width: int,
        aligned_width: int | None = None,
        *,
        heads: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.attention = CrossAttention(query_width, visual_width, heads=heads, dropout=dropout)

    def after(self, query_outputs: Tensor, seen: Seen) -> Tensor:
        """Query outputs (B,K,D), each with what it reads in the visual bank, shape kept."""
        return self.attention(query_outputs, *bank_of(seen, self))
