"""Where a fusion can act: on frame tokens before the memory, on query outputs behind it."""

from __future__ import annotations

from torch import Tensor, nn


class Fusion(nn.Module):
    """Leaves both places as they are; a method overrides the one, or both, at which it acts."""

    def before(self, frame_tokens: Tensor, prompt_embeds: Tensor, prompt_mask: Tensor) -> Tensor:
        """Frame tokens (B,T,P,Dv) on their way into the bank, shape kept.

        `prompt_embeds` (B,L,D) are the Q-Former's embeddings of the prompt, `prompt_mask` (B,L)
        True on real tokens, at least one a row. Frames are treated independently, so a stream of
        single frames (T=1) is fused as the whole film would be.
        """
        return frame_tokens

    def after(self, query_outputs: Tensor, bank_tokens: Tensor, bank_mask: Tensor) -> Tensor:
        """Query outputs (B,K,D) on their way to the projector, shape kept.

        `bank_tokens` (B,S,P,Dv) is the visual bank, `bank_mask` (B,S) True on filled slots, at
        least one a row.
        """
        return query_outputs
