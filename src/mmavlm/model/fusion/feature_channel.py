"""The aligned mean as further channels of every query output (MMA-MFF, feature-channel fusion)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmavlm.model.fusion.base import Fusion, Seen, required


class FeatureChannelFusion(Fusion):
    """out = [q ; a] on the channel axis, D + A wide, so the projection to the LLM is wider.

    Raises:
        ConfigError: if there is no aligned feature.
    """

    reads_aligned = True

    def __init__(
        self, visual_width: int, query_width: int, aligned_width: int | None = None
    ) -> None:
        super().__init__()
        self.aligned_width = required(aligned_width, "feature_channel")

    def after(self, query_outputs: Tensor, seen: Seen) -> Tensor:
        """Query outputs (B,K,D), each with the aligned feature (B,A) behind it: (B,K,D+A)."""
        assert seen.aligned is not None  # `reads_aligned`
        aligned = seen.aligned.to(query_outputs.dtype)[:, None]
        return torch.cat([query_outputs, aligned.expand(-1, query_outputs.shape[1], -1)], dim=-1)

    def projector(self, query_width: int, llm_width: int) -> nn.Linear:
        """A projection of D + A channels, into which one of D alone can be laid."""
        return WiderProjection(query_width, self.aligned_width, llm_width)


class WiderProjection(nn.Linear):
    """A linear layer that takes the weights of a narrower one into its first columns.

    It starts as MMA-MFF's: weights of Xavier, uniform; no bias yet. `grows_from` is the input width
    of the narrower layer; `weights.laid_over` widens such weights before they are loaded.
    """

    def __init__(self, grows_from: int, further: int, out_width: int) -> None:
        super().__init__(grows_from + further, out_width)
        self.grows_from = grows_from
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)
