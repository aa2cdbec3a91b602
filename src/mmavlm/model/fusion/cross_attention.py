"""Query outputs attend to their own aligned mean (MMA-MFF, cross-attention fusion)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmavlm.model.fusion.attention import check_heads
from mmavlm.model.fusion.base import Fusion, Seen, required, xavier


class CrossAttentionFusion(Fusion):
    """p = W·a, c = MHA(query q; keys and values p, K times), out = LN(α·q + (1 − α)·c + q).

    α = σ(`mix`), which starts at σ(0.5). All K keys are equal, so attention is uniform whatever the
    queries are, and c is the same for each of them but for dropout: published so, and kept.

    Raises:
        ConfigError: if there is no aligned feature, or `heads` does not divide `query_width`.
    """

    reads_aligned = True

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
        aligned = required(aligned_width, "cross_attention")
        check_heads(heads, query_width)
        self.attention = nn.MultiheadAttention(query_width, heads, dropout, batch_first=True)
        self.align_projection = xavier(aligned, query_width)
        self.mix = nn.Parameter(torch.full((1,), 0.5))  # FSDP shards no scalars
        self.norm = nn.LayerNorm(query_width)

    def after(self, query_outputs: Tensor, seen: Seen) -> Tensor:
        """Query outputs (B,K,D) with what they read in the aligned feature (B,A), shape kept."""
        assert seen.aligned is not None  # `reads_aligned`
        keys = self.align_projection(seen.aligned.to(query_outputs.dtype))
        keys = keys[:, None].expand(-1, query_outputs.shape[1], -1)
        read, _ = self.attention(query_outputs, keys, keys, need_weights=False)
        share = self.mix.sigmoid()
        return self.norm(share * query_outputs + (1 - share) * read + query_outputs)
