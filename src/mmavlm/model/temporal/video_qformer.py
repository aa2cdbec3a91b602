"""Video-LLaMA's vision branch: image Q-Former → frame positions → video Q-Former.

arXiv 2306.02858, section 2.1. Both Q-Formers are BLIP-2's, which read no text. Shapes: B films,
T frames, P frame tokens, Dv visual width, K query tokens of each Q-Former, D their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel
from typing_extensions import Self

from mmavlm.core.errors import ConfigError
from mmavlm.core.footprint import QFormerSizes
from mmavlm.core.interfaces import TextTokens
from mmavlm.core.settings import whole_at_least
from mmavlm.model.temporal.each_frame import EachFrame, FrameLooks
from mmavlm.model.temporal.queries import new_query_tokens


class FrameTable(nn.Module):
    """A learned vector (D) for each of `rows` frames, and for any number of frames between them.

    Frame t of a film that fits takes row t. A longer film is spread over the whole table, and a
    frame between two rows takes their linear interpolation.
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        whole_at_least("temporal", 1, max_frame_positions=rows)
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(rows, width), std=0.02))

    def forward(self, lengths: Tensor, frames: int) -> Tensor:
        """The vectors (B,T,D) of T `frames` for films of which `lengths` (B,) are real."""
        last = len(self.weight) - 1
        number = torch.arange(frames, device=self.weight.device)
        longer = last / (lengths - 1).clamp(min=max(last, 1))
        place = (number * longer[:, None]).clamp(max=last)
        below = place.long()
        part = (place - below)[:, :, None]
        above = (below + 1).clamp(max=last)
        return torch.lerp(self.weight[below], self.weight[above], part)


class VideoQFormer(EachFrame):
    """Query tokens look at each frame alone, and others at what these saw of the whole film.

    The image Q-Former has the sizes given, and the video Q-Former `video_layers` of the same width,
    each with cross-attention. Films of more than `max_frame_positions` frames take positions
    between those of the table. Every frame carries gradient, so activations grow with the film; a
    stream keeps K tokens a frame.

    Raises:
        ConfigError: if a number is below 1.
    """

    guide_positions: int | None = None  # reads no guide

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
        super().__init__()
        whole_at_least("temporal", 1, layers=layers, video_layers=video_layers)

        def qformer(layers: int, seen_width: int, frequency: int) -> Blip2QFormerModel:
            config = Blip2QFormerConfig(
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=hidden_width,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
                cross_attention_frequency=frequency,
                encoder_hidden_size=seen_width,
            )
            return Blip2QFormerModel(config)

        self.width = width
        self.image_qformer = qformer(layers, visual_width, cross_attention_frequency)
        self.image_queries = new_query_tokens(num_query_tokens, width)
        self.frame_table = FrameTable(max_frame_positions, width)
        self.video_qformer = qformer(video_layers, width, 1)
        self.video_queries = new_query_tokens(num_query_tokens, width)
        self.train_image_qformer = train_image_qformer
        for part in (self.image_qformer, self.image_queries):
            part.requires_grad_(train_image_qformer)

    def train(self, mode: bool = True) -> Self:
        """Enter train mode; an image Q-Former that does not learn stays in eval mode."""
        super().train(mode)
        self.image_qformer.train(mode and self.train_image_qformer)
        return self

    @property
    def num_queries(self) -> int:
        """K, the tokens of one look."""
        return self.video_queries.shape[1]

    def sizes(self, guide_tokens: int, at_most: int) -> QFormerSizes:
        """The sizes of the image Q-Former's look at one frame; it has no memory."""
        config = self.image_qformer.config
        crossing = -(-config.num_hidden_layers // config.cross_attention_frequency)
        return QFormerSizes(
            positions=self.num_queries,
            queries=self.num_queries,
            width=self.width,
            hidden=config.intermediate_size,
            layers=config.num_hidden_layers,
            crossing=crossing,
            slots=0,
        )

    def check_layers(self, layers: Sequence[int]) -> None:
        """Refuse to look behind single layers.

        Raises:
            ConfigError: if there are any.
        """
        if layers:
            raise ConfigError(
                "alignment level cross looks behind layers of a Q-Former that reads frames and "
                "guide, and temporal=video_qformer has none; choose alignment.levels=[low,high]"
            )

    def embed_prompt(self, prompt: TextTokens) -> Tensor:
        """No guide is read: (B,0,D)."""
        return self.video_queries.new_zeros(len(prompt.ids), 0, self.width)

    def see(self, frames: Tensor, guide: TextTokens, layers: Sequence[int]) -> tuple[Tensor, None]:
        """Frames (B,T,P,Dv) → what the image queries see in each, (B,T,K,D)."""
        films, length = frames.shape[:2]
        queries = self.image_queries.expand(films * length, -1, -1)
        outputs = _through(self.image_qformer, queries, frames.flatten(0, 1), None)
        return outputs.unflatten(0, (films, length)), None

    def join(self, state: FrameLooks, lengths: Tensor) -> Tensor:
        """What the video queries make of the first `lengths` (B,F) frames: (B,F,K,D)."""
        films, some = lengths.shape
        seen = state.outputs
        frames, lengths = seen.shape[1], lengths.clamp(min=1).flatten()
        keys = seen.repeat_interleave(some, dim=0)
        keys = keys + self.frame_table(lengths, frames)[:, :, None]
        real = torch.arange(frames, device=lengths.device) < lengths[:, None]
        mask = real.repeat_interleave(keys.shape[2], dim=1)
        queries = self.video_queries.expand(films * some, -1, -1)
        joined = _through(self.video_qformer, queries, keys.flatten(1, 2), mask)
        return joined.unflatten(0, (films, some))


def _through(qformer: Any, queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
    """Query outputs (N,K,D) of queries that attend to keys (N,L,·), real by the mask (N,L)."""
    added = None
    if mask is not None:  # as it is added to scores: transformers asks the device about a bool one
        least = torch.finfo(queries.dtype).min
        added = torch.zeros_like(mask, dtype=queries.dtype).masked_fill(~mask, least)[:, None, None]
        added = added.expand(-1, 1, queries.shape[1], -1)
    attended: Tensor = qformer(
        query_embeds=queries, encoder_hidden_states=keys, encoder_attention_mask=added
    ).last_hidden_state
    return attended
