"""Video-LLaMA's audio branch: clip positions → audio Q-Former (arXiv 2306.02858, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmavlm.core.interfaces import TextTokens
from mmavlm.model.temporal.each_frame import FrameLooks
from mmavlm.model.temporal.time_qformer import TimeQFormer


class ClipQFormer(TimeQFormer):
    """Query tokens that look at the tokens (P,Da) of all clips of a sound.

    A film without sound gives no token that is real.

    Raises:
        ConfigError: if a number is below 1.
    """

    def __init__(
        self,
        *,
        visual_width: int,
        vocab_size: int,
        num_query_tokens: int = 8,
        width: int = 768,
        layers: int = 2,
        heads: int = 12,
        hidden_width: int = 3072,
        dropout: float = 0.1,
        max_clip_positions: int = 8,
    ) -> None:
        super().__init__(
            width,
            visual_width,
            num_query_tokens=num_query_tokens,
            layers=layers,
            heads=heads,
            hidden_width=hidden_width,
            dropout=dropout,
            max_positions=max_clip_positions,
        )

    def see(self, frames: Tensor, guide: TextTokens, layers: Sequence[int]) -> tuple[Tensor, None]:
        """The tokens of clips (B,S,P,Da) as the encoder gives them."""
        return frames, None

    def mask(self, state: FrameLooks) -> Tensor:
        """Whether there is any sound, (B,1)."""
        return state.mask.any(dim=1, keepdim=True)
