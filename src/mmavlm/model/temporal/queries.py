"""What aggregators with a Q-Former that reads the guide have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmavlm.core.errors import ConfigError
from mmavlm.core.footprint import QFormerSizes
from mmavlm.core.interfaces import TextTokens
from mmavlm.model.qformer import QFormer


def new_query_tokens(count: int, width: int) -> nn.Parameter:
    """Query tokens (1,count,width) as they start.

    Raises:
        ConfigError: if there are none.
    """
    if count < 1:
        raise ConfigError(f"temporal.num_query_tokens must be at least 1, got {count}")
    return nn.Parameter(nn.init.normal_(torch.empty(1, count, width), std=0.02))


class GuidedQueries(nn.Module):
    """Query tokens that look at frames through a Q-Former, beside the words of the guide.

    Raises:
        ConfigError: if `num_query_tokens` is below 1.
    """

    def __init__(
        self,
        qformer: Callable[..., QFormer],
        visual_width: int,
        vocab_size: int,
        num_query_tokens: int,
    ) -> None:
        super().__init__()
        self.qformer = qformer(visual_width=visual_width, vocab_size=vocab_size)
        self.query_tokens = new_query_tokens(num_query_tokens, self.qformer.width)

    @property
    def width(self) -> int:
        """D, the width of the video tokens."""
        return self.qformer.width

    @property
    def num_queries(self) -> int:
        """K, the tokens of one look."""
        return self.query_tokens.shape[1]

    @property
    def guide_positions(self) -> int | None:
        """How many tokens of a guide the Q-Former reads at most."""
        return self.qformer.embeddings.position_embeddings.num_embeddings

    def embed_prompt(self, prompt: TextTokens) -> Tensor:
        """The guide through the Q-Former's own embedding layer, (B,L,D)."""
        return self.qformer.embed(prompt)

    def look_at_each(
        self,
        frames: Tensor,
        guide: TextTokens,
        layers: Sequence[int],
        film_of: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Frames (M,T,P,Dv), each alone → query outputs (V,T,K,D), and (V,T,C,K,D) behind `layers`.

        V guides ask about the films; `film_of` (V,) says about which, None: each about its own.
        """
        views, length = len(guide.ids), frames.shape[1]
        text = TextTokens(
            guide.ids.repeat_interleave(length, dim=0),
            guide.mask.repeat_interleave(length, dim=0),
        )
        rows = None
        if film_of is not None:
            number = torch.arange(length, device=frames.device)
            rows = (film_of[:, None] * length + number).flatten()
        queries = self.query_tokens.expand(views * length, -1, -1)
        outputs, crossed = self.qformer.look(queries, text, frames.flatten(0, 1), layers, rows)
        behind = torch.stack(crossed, dim=1).unflatten(0, (views, length)) if crossed else None
        return outputs.unflatten(0, (views, length)), behind

    def check_layers(self, layers: Sequence[int]) -> None:
        """Refuse layers that the Q-Former does not have.

        Raises:
            ConfigError: naming them, and how many there are.
        """
        count = len(self.qformer.layers)
        if missing := [layer for layer in layers if not 0 <= layer < count]:
            raise ConfigError(
                f"alignment.cross_layers names {missing}, but the Q-Former has layers 0 to "
                f"{count - 1}; choose among these"
            )

    def sizes(self, guide_tokens: int, at_most: int) -> QFormerSizes:
        """The sizes of a step, for films of `at_most` frames; without memory no slots."""
        layers = self.qformer.layers
        memory = getattr(self, "visual_memory", None)
        slots = getattr(memory, "slots", None) if memory is not None else 0
        queries = self.query_tokens.shape[1]
        return QFormerSizes(
            positions=queries + guide_tokens,
            queries=queries,
            width=self.qformer.width,
            hidden=layers[0].intermediate.dense.out_features,
            layers=len(layers),
            crossing=sum(layer.crossattention is not None for layer in layers),
            slots=at_most if slots is None else slots,
            recomputed=layers[0].gradient_checkpointing,
        )
