"""A Q-Former over all that was seen or heard of a film, in the order of time (Video-LLaMA).

arXiv 2306.02858, section 2. The Q-Former is BLIP-2's, which reads no text. Shapes: B films, T
frames or clips, N tokens of each, Ds their width, K query tokens, D their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from mmavlm.core.errors import ConfigError
from mmavlm.core.footprint import QFormerSizes
from mmavlm.core.interfaces import TextTokens
from mmavlm.core.settings import whole_at_least
from mmavlm.model.temporal.each_frame import EachFrame, FrameLooks
from mmavlm.model.temporal.queries import new_query_tokens


def blip2_qformer(
    width: int,
    seen_width: int,
    *,
    layers: int,
    heads: int,
    hidden_width: int,
    cross_attention_frequency: int,
    dropout: float,
) -> Blip2QFormerModel:
    """A Q-Former of BLIP-2, whose queries (·,D) look at tokens of `seen_width`."""
    config = Blip2QFormerConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=hidden_width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        cross_attention_frequency=cross_attention_frequency,
        encoder_hidden_size=seen_width,
    )
    return Blip2QFormerModel(config)


class TimeTable(nn.Module):
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


class TimeQFormer(EachFrame):
    """Query tokens that look at the tokens (N,Ds) of all frames, which know their place in time.

    A film of more than `max_positions` frames takes positions between those of the table. A
    subclass says what is seen in a frame. Every frame carries gradient, so activations grow with
    the film; a stream keeps what was seen in each frame.

    Raises:
        ConfigError: if a number is below 1.
    """

    guide_positions: int | None = None  # reads no guide

    def __init__(
        self,
        width: int,
        seen_width: int,
        *,
        num_query_tokens: int,
        layers: int,
        heads: int,
        hidden_width: int,
        dropout: float,
        max_positions: int,
    ) -> None:
        super().__init__()
        whole_at_least("temporal", 1, layers=layers)
        self.width = width
        self.time_table = TimeTable(max_positions, seen_width)
        self.time_qformer = blip2_qformer(
            width,
            seen_width,
            layers=layers,
            heads=heads,
            hidden_width=hidden_width,
            cross_attention_frequency=1,
            dropout=dropout,
        )
        self.time_queries = new_query_tokens(num_query_tokens, width)

    @property
    def num_queries(self) -> int:
        """K, the tokens of one look."""
        return self.time_queries.shape[1]

    def sizes(self, guide_tokens: int, at_most: int) -> QFormerSizes:
        """The sizes of the look at one frame; there is no memory."""
        config = self._looking.config
        return QFormerSizes(
            positions=self.num_queries,
            queries=self.num_queries,
            width=self.width,
            hidden=config.intermediate_size,
            layers=config.num_hidden_layers,
            crossing=-(-config.num_hidden_layers // config.cross_attention_frequency),
            slots=0,
        )

    @property
    def _looking(self) -> Any:
        """The Q-Former that looks at what the encoder gives."""
        return self.time_qformer

    def check_layers(self, layers: Sequence[int]) -> None:
        """Refuse to look behind single layers.

        Raises:
            ConfigError: if there are any.
        """
        if layers:
            raise ConfigError(
                "alignment level cross looks behind layers of a Q-Former that reads frames and "
                f"guide, and {type(self).__name__} has none; choose alignment.levels=[low,high]"
            )

    def embed_prompt(self, prompt: TextTokens) -> Tensor:
        """No guide is read: (B,0,D)."""
        return self.time_queries.new_zeros(len(prompt.ids), 0, self.width)

    def join(self, state: FrameLooks, lengths: Tensor) -> Tensor:
        """What the queries make of the first `lengths` (B,F) frames: (B,F,K,D)."""
        films, some = lengths.shape
        seen = state.outputs
        frames, lengths = seen.shape[1], lengths.clamp(min=1).flatten()
        keys = seen.repeat_interleave(some, dim=0)
        keys = keys + self.time_table(lengths, frames)[:, :, None]
        real = torch.arange(frames, device=lengths.device) < lengths[:, None]
        mask = real.repeat_interleave(keys.shape[2], dim=1)
        queries = self.time_queries.expand(films * some, -1, -1)
        joined = through(self.time_qformer, queries, keys.flatten(1, 2), mask)
        return joined.unflatten(0, (films, some))


def through(qformer: Any, queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
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
