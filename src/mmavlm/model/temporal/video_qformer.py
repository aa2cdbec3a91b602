"""Video-LLaMA's vision branch: image Q-Former → frame positions → video Q-Former.

arXiv 2306.02858, section 2.1. Shapes: B films, T frames, P frame tokens, Dv visual width, K query
tokens of each Q-Former, D their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from typing_extensions import Self

from mmavlm.core.interfaces import TextTokens
from mmavlm.core.settings import whole_at_least
from mmavlm.model.temporal.queries import new_query_tokens
from mmavlm.model.temporal.time_qformer import TimeQFormer, blip2_qformer, through


class VideoQFormer(TimeQFormer):
    """Query tokens look at each frame alone, and others at what these saw of all frames.

    The image Q-Former has the sizes given, and the video Q-Former `video_layers` of the same width,
    each with cross-attention.

    Raises:
        ConfigError: if a number is below 1.
    """

    def __init__(
        self,
        *,
        visual_width: int,
        vocab_size: int,
        num_query_tokens: int = 32,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        hidden_width: int = 3072,
        cross_attention_frequency: int = 2,
        dropout: float = 0.1,
        video_layers: int = 2,
        max_frame_positions: int = 32,
        train_image_qformer: bool = True,
    ) -> None:
        sizes: dict[str, Any] = {"heads": heads, "hidden_width": hidden_width, "dropout": dropout}
        super().__init__(
            width,
            width,
            num_query_tokens=num_query_tokens,
            layers=video_layers,
            max_positions=max_frame_positions,
            **sizes,
        )
        whole_at_least("temporal", 1, layers=layers)
        self.image_qformer = blip2_qformer(
            width,
            visual_width,
            layers=layers,
            cross_attention_frequency=cross_attention_frequency,
            **sizes,
        )
        self.image_queries = new_query_tokens(num_query_tokens, width)
        self.train_image_qformer = train_image_qformer
        for part in (self.image_qformer, self.image_queries):
            part.requires_grad_(train_image_qformer)

    def train(self, mode: bool = True) -> Self:
        """Enter train mode; an image Q-Former that does not learn stays in eval mode."""
        super().train(mode)
        self.image_qformer.train(mode and self.train_image_qformer)
        return self

    @property
    def _looking(self) -> Any:
        return self.image_qformer

    def see(self, frames: Tensor, guide: TextTokens, layers: Sequence[int]) -> tuple[Tensor, None]:
        """Frames (B,T,P,Dv) → what the image queries see in each, (B,T,K,D)."""
        films, length = frames.shape[:2]
        queries = self.image_queries.expand(films * length, -1, -1)
        outputs = through(self.image_qformer, queries, frames.flatten(0, 1), None)
        return outputs.unflatten(0, (films, length)), None
