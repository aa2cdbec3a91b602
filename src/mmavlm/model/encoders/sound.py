"""Audio encoders: clips of sound → tokens. They never learn."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmavlm.core.errors import ConfigError
from mmavlm.model.encoders.base import Frozen
from mmavlm.model.encoders.mel import KaldiFbank
from mmavlm.model.encoders.tiny import TinyEncoder


class FrozenSoundEncoder(Frozen):
    """A frozen audio encoder of clips of `clip_s` seconds at `rate_hz`.

    `features` turns clips (N,samples) into what the weights were trained on; its `repr` says all
    that it depends on. A subclass writes `tokens`.

    Raises:
        ConfigError: if a clip has no sample.
    """

    setting = "sound_encoder"
    one_input = "1 clip"

    def __init__(
        self,
        *,
        rate_hz: int,
        clip_s: float,
        features: nn.Module,
        num_tokens: int,
        width: int,
        chunk_size: int,
        compile_backend: str | None,
    ) -> None:
        super().__init__(
            num_tokens=num_tokens,
            width=width,
            chunk_size=chunk_size,
            compile_backend=compile_backend,
        )
        self.samples = samples_of(clip_s, rate_hz)
        self.rate_hz = rate_hz
        self.clip_s = clip_s
        self.features = features

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (N,samples), floats from −1 to 1 → tokens (N,P,Da).

        Raises:
            ConfigError: if the clips are not of `clip_s` seconds at `rate_hz`.
        """
        if clips.ndim != 2 or clips.shape[1] != self.samples:
            raise ConfigError(
                f"{type(self).__name__} takes clips (N,{self.samples}), {self.clip_s:g} s at "
                f"{self.rate_hz} Hz, got {tuple(clips.shape)}; cut and resample sound to that"
            )
        return self.encoded(clips)

    def normalised(self, inputs: Tensor) -> Tensor:
        """Clips (N,samples) → features in float32."""
        return self.features(inputs.float())

    def transform(self) -> tuple[str, dict[str, Tensor]]:
        """The rate, the length of clips, and what the features depend on."""
        return f"{self.rate_hz} {self.clip_s:g} {self.features}", {}


def samples_of(clip_s: float, rate_hz: int) -> int:
    """How many samples a clip has.

    Raises:
        ConfigError: if none.
    """
    samples = round(clip_s * rate_hz)
    if samples < 1:
        raise ConfigError(f"sound_encoder.clip_s is {clip_s}; give more than 0 seconds")
    return samples


class TinySoundEncoder(FrozenSoundEncoder):
    """Random features of mel patches: 16 tokens a clip, 4 bands by 4 stretches of time.

    Log-mel energies are stretched to 192 frames, which a `TinyEncoder` sees as a picture of 64×64
    whose three channels are three frames in a row. The weights depend on `seed` alone.

    Raises:
        ConfigError: if `width` is no multiple of 4, or a clip has no sample.
    """

    SIDE, CHANNELS = 64, 3

    def __init__(
        self,
        clip_s: float = 2.0,
        width: int = 64,
        seed: int = 0,
        *,
        rate_hz: int = 16_000,
        chunk_size: int = 256,
        compile_backend: str | None = None,
    ) -> None:
        frames = max(samples_of(clip_s, rate_hz) * 100 // rate_hz, 1)
        pictures = TinyEncoder(self.SIDE, self.SIDE // 4, width, seed)
        super().__init__(
            rate_hz=rate_hz,
            clip_s=clip_s,
            features=KaldiFbank(rate_hz, self.SIDE, frames),
            num_tokens=pictures.num_tokens,
            width=width,
            chunk_size=chunk_size,
            compile_backend=compile_backend,
        )
        self.pictures = pictures
        self.freeze()

    def tokens(self, inputs: Tensor) -> Tensor:
        """Features (N,frames,mels) → tokens (N,16,Da), low bands first, each in order of time."""
        size = self.SIDE * self.CHANNELS
        stretched = F.interpolate(inputs.transpose(1, 2), size=size, mode="linear")
        picture = rearrange(stretched, "n m (t c) -> n c m t", c=self.CHANNELS)
        return self.pictures.tokens(2 * picture)  # its filters expect a deviation of about 1
