"""What takes an encoder's place where its outputs come from the feature cache."""

from __future__ import annotations

from torch import Tensor, nn

from mmavlm.core.errors import ConfigError


class StandInEncoder(nn.Module):
    """The shape and fingerprint of an encoder that is not built, and holds no weights.

    `image_size` is None for an encoder of sound.
    """

    def __init__(
        self, *, image_size: int | None, num_tokens: int, width: int, fingerprint: str
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.num_tokens = num_tokens
        self.width = width
        self.fingerprint = fingerprint

    def forward(self, inputs: Tensor) -> Tensor:
        """Refuse.

        Raises:
            ConfigError: always; only features of the cache can be taken.
        """
        what = "clips" if self.image_size is None else "frames"
        raise ConfigError(
            f"{what} {tuple(inputs.shape)} were given to a model that takes features from "
            "data.cache and has no encoder; set data.cache=null to build it"
        )
