"""What all frozen encoders share: chunks, fingerprints, staying frozen; and the visual ones."""

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


class Frozen(nn.Module, ABC):
    """An encoder that never learns: no gradients, and eval mode whatever its parents do.

    A subclass builds its modules, calls `freeze`, and writes `normalised`, `tokens` and
    `transform`. At most `chunk_size` inputs are encoded at a time, which bounds memory and changes
    no result. `compile_backend` (such as inductor) compiles the encoder.
    """

    setting = "encoder"  # where its settings stand
    one_input = "1 frame"

    def __init__(
        self, *, num_tokens: int, width: int, chunk_size: int, compile_backend: str | None
    ) -> None:
        super().__init__()
        if chunk_size < 1:
            raise ConfigError(
                f"{self.setting}.chunk_size is {chunk_size}; give {self.one_input} or more"
            )
        self.num_tokens = num_tokens
        self.width = width
        self.chunk_size = chunk_size
        self._to_tokens = compiled(self.tokens, compile_backend)
        self._fingerprints: dict[torch.dtype, str] = {}
        self.register_load_state_dict_post_hook(lambda *_: self._fingerprints.clear())

    @abstractmethod
    def normalised(self, inputs: Tensor) -> Tensor:
        """Inputs as they come → as the weights were trained on them, in float32."""

    @abstractmethod
    def tokens(self, inputs: Tensor) -> Tensor:
        """Normalised inputs, in the dtype of the weights → tokens (N,P,Dv)."""

    @abstractmethod
    def transform(self) -> tuple[str, dict[str, Tensor]]:
        """What tokens depend on beside the weights: settings in words, and tensors by name."""

    def encoded(self, inputs: Tensor) -> Tensor:
        """Inputs (N,…) → tokens (N,P,Dv), chunk by chunk, without gradient."""
        if not len(inputs):  # which not every model takes
            shape = (0, self.num_tokens, self.width)
            return torch.empty(shape, dtype=self.dtype, device=inputs.device)
        with torch.inference_mode():
            chunks = [
                self._to_tokens(self.normalised(chunk).to(self.dtype))
                for chunk in inputs.split(self.chunk_size)
            ]
        # outside inference mode, so that what learns may keep the tokens for its gradient
        with torch.no_grad():
            return torch.cat(chunks)

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
        settings, tensors = self.transform()
        digest = hashlib.sha256(f"{type(self).__name__} {settings}".encode())
        state: dict[str, Any] = self.state_dict() | tensors
        for name, tensor in sorted(state.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy())
        return digest.hexdigest()


class FrozenEncoder(Frozen):
    """A frozen visual encoder; if its tokens are patches, a subclass sets `patch_grid`.

    `mean` and `std` are those of the channels in the range 0–1.
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
        super().__init__(
            num_tokens=num_tokens,
            width=width,
            chunk_size=chunk_size,
            compile_backend=compile_backend,
        )
        self.image_size = image_size
        for name, values in (("mean", mean), ("std", std)):
            scaled = 255 * torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, scaled, persistent=False)

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
        return self.encoded(frames)

    def normalised(self, inputs: Tensor) -> Tensor:
        """Frames (N,3,H,W) from 0 to 255 → images of mean 0 and deviation 1."""
        return (inputs.to(self.mean.dtype) - self.mean) / self.std

    def transform(self) -> tuple[str, dict[str, Tensor]]:
        """The size of images, and the mean and deviation of their channels."""
        return str(self.image_size), {"mean": self.mean, "std": self.std}
