"""Both directions, each behind a gate that starts closed (after MMA-MFF)."""

from __future__ import annotations

from einops import rearrange, repeat
from torch import Tensor

from mmavlm.fusion.base import Fusion
from mmavlm.fusion.cross_attention import CrossAttention


class Bidirectional(Fusion):
    """Frames read the prompt before the bank, query outputs read the bank before the projector.

    Both are gated, so training starts from the unfused model.

    Raises:
        ConfigError: if `heads` does not divide `visual_width` and `query_width`.
    """

    def __init__(
        self, visual_width: int, query_width: int, heads: int = 8, dropout: float = 0.1
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

    def after(self, query_outputs: Tensor, bank_tokens: Tensor, bank_mask: Tensor) -> Tensor:
        """Query outputs (B,K,D), each with what it reads in the bank (B,S,P,Dv), masked (B,S)."""
        bank = rearrange(bank_tokens, "b s p dv -> b (s p) dv")
        mask = repeat(bank_mask, "b s -> b (s p)", p=bank_tokens.shape[2])
        return self.query_to_visual(query_outputs, bank, mask)
