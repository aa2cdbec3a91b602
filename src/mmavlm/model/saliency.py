"""Frame tokens re-weighted by what the model itself attends to, before they are read again.

The idea is DINO-HEAL's (arXiv 2412.03735), whose weights come from a tower of their own; here they
are the model's cross-attention, and nothing is trained. Shapes: V views, T frames, P frame tokens,
Dv visual width, S slots, C layers with cross-attention, K query tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import TemporalAggregator
from mmavlm.core.settings import at_least
from mmavlm.model.memory import frame_shares
from mmavlm.model.temporal import MemoryQFormer, State, last_look
from mmavlm.model.temporal.looks import of_views
from mmavlm.model.watched import Watched

Of = Literal["frames", "patches"]


@dataclass(frozen=True, kw_only=True)
class AttentionSaliency:
    """Each token x of a film becomes x·(1 + `strength`·(r − 1)).

    r is the attention that all queries pay to the token at the end of the film, through the slots
    of the memory, as a multiple of an even share: its mean over a film is 1, and even attention
    changes nothing. With `of` "frames" all tokens of a frame have the mean of theirs.

    Raises:
        ConfigError: if the strength is not from 0 to 1, or `of` is neither.
    """

    strength: float = 0.5
    of: Of = "frames"

    def __post_init__(self) -> None:
        at_least("saliency", 0, strength=self.strength)
        if self.strength is None or self.strength > 1:
            raise ConfigError(
                f"saliency.strength={self.strength} must be from 0 to 1, where a token that nobody "
                "attends to becomes 0"
            )
        if self.of not in get_args(Of):
            raise ConfigError(
                f"saliency.of={self.of!r} is unknown; choose one of {', '.join(get_args(Of))}"
            )

    @torch.no_grad()
    def __call__(self, temporal: TemporalAggregator, watched: Watched) -> Watched:
        """The films as they are to be read again, each view a film of its own.

        Raises:
            ConfigError: if the temporal aggregator attends to no memory.
        """
        if not isinstance(temporal, MemoryQFormer):
            raise ConfigError(
                f"saliency=attention reads the attention to a memory, and "
                f"{type(temporal).__name__} has none; choose temporal=memory_qformer, or "
                "saliency=none"
            )
        tokens, mask = of_views(watched.frame_tokens, watched.frame_mask, watched.film_of)
        views = replace(watched, frame_tokens=tokens, frame_mask=mask, film_of=None)
        state = cast(State, temporal(tokens, watched.guide, mask))
        weight = 1 + self.strength * (self._shares(temporal, state, views) - 1)
        return replace(views, frame_tokens=tokens * weight[..., None].to(tokens.dtype))

    def _shares(self, temporal: MemoryQFormer, state: State, views: Watched) -> Tensor:
        """Multiples r (V,T,P) of an even share of attention; 1 on padding."""
        look = last_look(temporal, state).float().mean(dim=(1, 2))  # (V,S,P)
        held = frame_shares(
            temporal.visual_memory, state.visual_bank, views.frame_tokens, views.frame_mask
        )
        share = torch.einsum("vsp,vspt->vtp", look, held.to(look.dtype))
        if self.of == "frames":
            share = share.mean(dim=2, keepdim=True).expand_as(share)
        real = views.frame_mask[:, :, None].expand_as(share)
        share = share.masked_fill(~real, 0)
        total = share.sum(dim=(1, 2), keepdim=True)
        even = total / real.sum(dim=(1, 2), keepdim=True)
        return torch.where(real & (even > 0), share / even, 1.0)
