"""The temperature τ of the contrastive losses."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmavlm.core.errors import ConfigError


class Temperature(nn.Module):
    """The factor 1/τ of similarities, fixed or learned as log(1/τ), with τ never below `minimum`.

    MMA does not print its τ; 0.07 is where CLIP starts, 0.01 where CLIP stops. Fixed by default,
    as in the paper's equation; MMA-MFF's code learns it from 0.07, without a bound (None).

    Raises:
        ConfigError: unless 0 < minimum ≤ initial.
    """

    def __init__(
        self, initial: float = 0.07, learnable: bool = False, minimum: float | None = 0.01
    ) -> None:
        super().__init__()
        if not initial > 0 or (minimum is not None and not 0 < minimum <= initial):
            raise ConfigError(
                f"alignment.temperature has initial={initial} and minimum={minimum}; "
                "choose 0 < minimum ≤ initial, such as initial=0.07 and minimum=0.01"
            )
        self.highest = math.inf if minimum is None else math.log(1 / minimum)
        log_scale = torch.full((1,), math.log(1 / initial))  # FSDP shards no scalars
        if learnable:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)

    def forward(self) -> Tensor:
        """1/τ, shape (1,)."""
        # The gradient passes the clamp; a temperature at its bound could never leave it otherwise.
        excess = (self.log_scale - self.highest).clamp(min=0).detach()
        return (self.log_scale - excess).exp()
