"""What takes an encoder's place where its outputs come from the feature cache."""

from __future__ import annotations

from torch import Tensor, nn

from mmavlm.core.errors import ConfigError


class StandInEncoder(nn.Module):
    """The shape and fingerprint of a visual encoder that is not built, and holds no weights."""

    def __init__(self, *, image_size: int, num_tokens: int, width: int, fingerprint: str) -> None:
        super().__init__()
        self.image_size = image_size
        self.num_tokens = num_tokens
        self.width = width
        self.fingerprint = fingerprint

    def forward(self, frames: Tensor) -> Tensor:
        """Refuse.

        Raises:
            ConfigError: always; only features of the cache can be taken.
        """
        raise ConfigError(
            f"frames {tuple(frames.shape)} were given to a model that takes features from "
            "data.cache and has no encoder; set data.cache=null to build it"
        )
