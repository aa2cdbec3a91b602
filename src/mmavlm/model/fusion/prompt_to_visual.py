"""Frames look at the prompt before they are remembered (MMA-MFF)."""

from __future__ import annotations

from torch import Tensor

from mmavlm.model.fusion.attention import CrossAttention
from mmavlm.model.fusion.base import Fusion


class PromptToVisual(Fusion):
    """Each frame's tokens attend to the prompt's embeddings and add what they read.

    Raises:
        ConfigError: if `heads` does not divide `visual_width`.
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
        self.attention = CrossAttention(visual_width, query_width, heads=heads, dropout=dropout)

    def before(self, frame_tokens: Tensor, prompt_embeds: Tensor, prompt_mask: Tensor) -> Tensor:
        """Frame tokens (B,T,P,Dv), each with what it reads in the prompt (B,L,D), masked (B,L)."""
        fused = self.attention(frame_tokens.flatten(1, 2), prompt_embeds, prompt_mask)
        return fused.view_as(frame_tokens)
