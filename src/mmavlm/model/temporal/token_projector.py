"""The projections of context and content tokens to the width of a language model (LLaMA-VID)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmavlm.core.errors import ConfigError

KINDS = ("mlp2x_gelu", "linear", "identity")


class TokenProjector(nn.Module):
    """Looks of `tokens` tokens: the first, of context, and the others, of content, apart.

    Context goes through a linear layer. Content goes through two with a GELU between (`kind`
    mlp2x_gelu), through one (linear), or stays as it is (identity).

    Raises:
        ConfigError: if the kind is unknown, or identity would leave another width.
    """

    def __init__(self, width: int, llm_width: int, tokens: int, kind: str) -> None:
        super().__init__()
        self.tokens = tokens
        self.context = nn.Linear(width, llm_width)
        self.content = _content(width, llm_width, kind)

    def forward(self, looks: Tensor) -> Tensor:
        """(V,looks·K,C) → (V,looks·K,Dl)."""
        frames = looks.unflatten(1, (-1, self.tokens))
        context, content = self.context(frames[:, :, :1]), self.content(frames[:, :, 1:])
        return torch.cat([context, content], dim=2).flatten(1, 2)


def _content(width: int, llm_width: int, kind: str) -> nn.Module:
    if kind == "linear":
        return nn.Linear(width, llm_width)
    if kind == "mlp2x_gelu":
        layers = nn.Linear(width, llm_width), nn.GELU(), nn.Linear(llm_width, llm_width)
        return nn.Sequential(*layers)
    if kind != "identity":
        known = ", ".join(KINDS)
        raise ConfigError(f"temporal.projector={kind!r} is unknown; choose one of {known}")
    if width != llm_width:
        raise ConfigError(
            f"temporal.projector=identity hands on patches of width {width}, and the language "
            f"model reads {llm_width}; choose mlp2x_gelu or linear"
        )
    return nn.Identity()
