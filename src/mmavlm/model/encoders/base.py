"""What all visual encoders share: normalisation, chunks, and staying frozen."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import PatchGrid
from mmavlm.model.compiling import compiled


class FrozenEncoder(nn.Module, ABC):
    """A visual encoder that never learns: no gradients, and eval mode whatever its parents do.

    A subclass builds its modules, calls `freeze`, and writes `tokens`; if they are patches it sets
    `patch_grid`. At most `chunk_size` frames
    are encoded at a time, which bounds memory and changes no result. `mean` and `std` are those
    of the channels in the range 0–1. `compile_backend` (such as inductor) compiles the encoder.
    """

    mean: Tensor
    std: Tensor
    patch_grid: PatchGrid | None = None

    def __init__(
        self,
        *,
        image_size: int,
        num_tokens: int,
        width: int,
        mean: Sequence[float],
        std: Sequence[float],
        chunk_size: int,
        compile_backend: str | None,
    ) -> None:
        super().__init__()
        if chunk_size < 1:
            raise ConfigError(f"encoder.chunk_size is {chunk_size}; give 1 frame or more")
        self.image_size = image_size
        self.num_tokens = num_tokens
        self.width = width
        self.chunk_size = chunk_size
        for name, values in (("mean", mean), ("std", std)):
            scaled = 255 * torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, scaled, persistent=False)
        self._to_tokens = compiled(self.tokens, compile_backend)
        self._fingerprints: dict[torch.dtype, str] = {}
        self.register_load_state_dict_post_hook(lambda *_: self._fingerprints.clear())

    @abstractmethod
    def tokens(self, images: Tensor) -> Tensor:
        """Normalised images (N,3,H,W), in the dtype of the weights → frame tokens (N,P,Dv)."""

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (N,3,H,W), uint8 or floats from 0 to 255 → frame tokens (N,P,Dv).

        Raises:
            ConfigError: if the frames are not RGB images of `image_size`.
        """
        if frames.shape[1:] != (3, self.image_size, self.image_size):
            raise ConfigError(
                f"{type(self).__name__} takes frames (N,3,{self.image_size},{self.image_size}), "
                f"got {tuple(frames.shape)}; set data.image_size={self.image_size}"
            )
        with torch.inference_mode():
            chunks = [self._encode(chunk) for chunk in frames.split(self.chunk_size)]
        # outside inference mode, so that what learns may keep the tokens for its gradient
        with torch.no_grad():
            return torch.cat(chunks)

    def _encode(self, frames: Tensor) -> Tensor:
        normalised = (frames.to(self.mean.dtype) - self.mean) / self.std
        return self._to_tokens(normalised.to(self.dtype))

    def freeze(self) -> None:
        """Take every parameter out of training, for good."""
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, and of the tokens."""
        return next(p.dtype for p in self.parameters())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights and input transform, the same on every device."""
        if self.dtype not in self._fingerprints:
            self._fingerprints[self.dtype] = self._hash()
        return self._fingerprints[self.dtype]

    def _hash(self) -> str:
        digest = hashlib.sha256(f"{type(self).__name__} {self.image_size}".encode())
        state: dict[str, Any] = self.state_dict() | {"mean": self.mean, "std": self.std}
        for name, tensor in sorted(state.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy())
        return digest.hexdigest()
