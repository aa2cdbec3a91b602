"""The aligned mean as one more token behind the query outputs (MMA-MFF, sequence fusion)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmavlm.model.fusion.base import Fusion, Seen, required, xavier


class SequenceDimensionFusion(Fusion):
    """p = W·a, h = p ∘ gate(mean q), h ← h + R·h, out = [q ; σ(`mix`)·h] on the token axis.

    The gate is σ(W₂·ReLU(W₁·mean q)) with a quarter of the width in between; `mix` starts at 0.5.

    Raises:
        ConfigError: if there is no aligned feature.
    """

    reads_aligned = True

    def __init__(
        self, visual_width: int, query_width: int, aligned_width: int | None = None
    ) -> None:
        super().__init__()
        self.align_projection = xavier(required(aligned_width, "sequence_dimension"), query_width)
        inner = query_width // 4
        self.gate = nn.Sequential(
            nn.Linear(query_width, inner), nn.ReLU(), nn.Linear(inner, query_width), nn.Sigmoid()
        )
        self.residual_projection = xavier(query_width, query_width)
        self.mix = nn.Parameter(torch.full((1,), 0.5))  # FSDP shards no scalars

    def after(self, query_outputs: Tensor, seen: Seen) -> Tensor:
        """Query outputs (B,K,D) and the gated aligned feature (B,A) behind them: (B,K+1,D)."""
        assert seen.aligned is not None  # `reads_aligned`
        token = self.align_projection(seen.aligned.to(query_outputs.dtype))
        token = token * self.gate(query_outputs.mean(dim=1))
        token = self.mix.sigmoid() * (token + self.residual_projection(token))
        return torch.cat([query_outputs, token[:, None].to(query_outputs.dtype)], dim=1)

    def num_tokens(self, queries: int) -> int:
        """One more than the query outputs."""
        return queries + 1
