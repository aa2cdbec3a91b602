"""Both directions, each behind a gate that starts closed (after MMA-MFF)."""

from __future__ import annotations

from torch import Tensor

from mmavlm.model.fusion.attention import CrossAttention
from mmavlm.model.fusion.base import Fusion, Seen, bank_of


class Bidirectional(Fusion):
    """Frames read the prompt before the bank, query outputs read the bank before the projector.

    Both are gated, so training starts from the unfused model.

    Raises:
        ConfigError: if `heads` does not divide `visual_width` and `query_width`.
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
        self.prompt_to_visual = CrossAttention(
            visual_width, query_width, heads=heads, dropout=dropout, gated=True
        )
        self.query_to_visual = CrossAttention(
            query_width, visual_width, heads=heads, dropout=dropout, gated=True
        )

    def before(self, frame_tokens: Tensor, prompt_embeds: Tensor, prompt_mask: Tensor) -> Tensor:
        """Frame tokens (B,T,P,Dv), each with what it reads in the prompt (B,L,D), masked (B,L)."""
        fused = self.prompt_to_visual(frame_tokens.flatten(1, 2), prompt_embeds, prompt_mask)
        return fused.view_as(frame_tokens)

    def after(self, query_outputs: Tensor, seen: Seen) -> Tensor:
        """Query outputs (B,K,D), each with what it reads in the visual bank, shape kept."""
        return self.query_to_visual(query_outputs, *bank_of(seen, self))
