"""A visual encoder with random weights, for tests, demonstrations and small experiments."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import PatchGrid
from mmavlm.model.encoders.base import FrozenEncoder


class TinyEncoder(FrozenEncoder):
    """Random features of patches: P = (image_size/patch_size)² tokens of about unit variance.

    Half of the channels are linear in the patch, with orthonormal filters that see pixels in
    blocks of 2×2, so that most of what a patch shows can be read back; the other half are
    rectified. Fixed sines and cosines mark the place, and one residual layer mixes each patch with
    its neighbours. The weights depend on `seed` alone, not on the state of the global generator.

    Raises:
        ConfigError: if the patches do not tile the image, or `width` is no multiple of 4.
    """

    positions: Tensor

    def __init__(
        self,
        image_size: int = 64,
        patch_size: int = 8,
        width: int = 64,
        seed: int = 0,
        *,
        chunk_size: int = 256,
        compile_backend: str | None = None,
    ) -> None:
        if image_size % patch_size:
            raise ConfigError(
                f"encoder.patch_size {patch_size} does not divide encoder.image_size {image_size}; "
                "choose a patch size that does"
            )
        if width % 4:
            raise ConfigError(f"encoder.width is {width}; choose a multiple of 4")
        side = image_size // patch_size
        super().__init__(
            image_size=image_size,
            num_tokens=side * side,
            width=width,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            chunk_size=chunk_size,
            compile_backend=compile_backend,
        )
        self.patch_grid = PatchGrid(0, side, side)
        self.patches = nn.Conv2d(3, width, patch_size, stride=patch_size)
        self.neighbours = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.mixing = nn.Conv2d(width, width, 1)
        self.register_buffer("positions", _positions(side, width))
        self._draw(torch.Generator().manual_seed(seed))
        self.freeze()

    def tokens(self, images: Tensor) -> Tensor:
        """Images (N,3,H,W) → tokens (N,P,Dv), row by row from the top left."""
        linear, rectified = self.patches(images).chunk(2, dim=1)
        grid = torch.cat([linear, F.relu(rectified)], dim=1) + self.positions
        grid = grid + F.relu(self.mixing(self.neighbours(grid)))
        return F.layer_norm(rearrange(grid, "n d y x -> n (y x) d"), (self.width,))

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        width, _, patch_size, _ = self.patches.weight.shape
        coarse_side = (patch_size + 1) // 2
        halves = [_orthonormal_rows(width // 2, 3 * coarse_side**2, generator) for _ in range(2)]
        blocks = torch.cat(halves).view(width, 3, coarse_side, coarse_side)
        filters = F.interpolate(blocks, size=(patch_size, patch_size), mode="nearest")
        filters = filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        for parameter, values in (
            (self.patches.weight, filters),
            (self.patches.bias, _normal((width,), generator) / 2),
            (self.neighbours.weight, _normal((width, 1, 3, 3), generator) / 3),
            (self.mixing.weight, _normal((width, width, 1, 1), generator) / math.sqrt(width)),
            (self.mixing.bias, torch.zeros(width)),
        ):
            assert parameter is not None
            parameter.copy_(_rounded(values))


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def _rounded(values: Tensor) -> Tensor:
    """Float32 multiples of 2⁻¹⁰, so that threads and processors cannot change the fingerprint."""
    return torch.round(values * 1024).float() / 1024


def _orthonormal_rows(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Random rows of unit norm, orthogonal within each group of `columns` rows."""
    drawn = _normal((math.ceil(rows / columns), columns, columns), generator)
    return torch.linalg.qr(drawn).Q.reshape(-1, columns)[:rows]


def _positions(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column, (1,width,side,side), each with `width`/4 periods."""
    rate = math.pi * torch.logspace(0, -math.log10(max(side, 2)), width // 4, dtype=torch.float64)
    angle = torch.arange(side)[:, None] * rate
    wave = _rounded(torch.cat([angle.sin(), angle.cos()], dim=1))  # (side, width/2)
    rows, columns = repeat(wave, "y d -> d y x", x=side), repeat(wave, "x d -> d y x", y=side)
    return torch.cat([rows, columns])[None]
