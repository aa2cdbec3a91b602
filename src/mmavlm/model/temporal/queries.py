"""What every aggregator asks of its Q-Former: query tokens, and layers that are there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mmavlm.core.errors import ConfigError
from mmavlm.model.qformer import QFormer


def new_query_tokens(count: int, width: int) -> nn.Parameter:
    """Query tokens (1,count,width) as they start.

    Raises:
        ConfigError: if there are none.
    """
    if count < 1:
        raise ConfigError(f"temporal.num_query_tokens must be at least 1, got {count}")
    return nn.Parameter(nn.init.normal_(torch.empty(1, count, width), std=0.02))


def require_layers(qformer: QFormer, layers: Sequence[int]) -> None:
    """Refuse layers that a Q-Former does not have.

    Raises:
        ConfigError: naming them, and how many there are.
    """
    count = len(qformer.layers)
    if missing := [layer for layer in layers if not 0 <= layer < count]:
        raise ConfigError(
            f"alignment.cross_layers names {missing}, but the Q-Former has layers 0 to "
            f"{count - 1}; choose among these"
        )
