"""From decoded pictures to uint8 tensors of one size; one crop and one flip a clip."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as V

from mmavlm.data.video import Picture

AREA = (0.5, 1.0)
ASPECT = (3 / 4, 4 / 3)


class ClipTransform:
    """Bicubic resize to S×S; in training of one random crop, mirrored or not, the same all clip.

    `rng` None means evaluation: the whole picture. Crops cover 50 to 100 % of the area at an aspect
    of 3/4 to 4/3. Resizing uint8 clamps what bicubic interpolation overshoots.
    """

    def __init__(
        self,
        image_size: int,
        rng: np.random.Generator | None,
        *,
        crop: bool = True,
        flip: bool = True,
    ) -> None:
        self.image_size = image_size
        self.crop = rng.random(4) if rng is not None and crop else None
        self.mirror = rng is not None and flip and bool(rng.random() < 0.5)

    def __call__(self, picture: Picture) -> Tensor:
        """(H,W,3) → uint8 (3,S,S)."""
        if self.crop is not None:
            top, left, height, width = crop_box(*picture.shape[:2], *self.crop)
            picture = picture[top : top + height, left : left + width]
        # a quarter faster than resizing the crop in place
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
        pixels = V.resize(pixels, [self.image_size] * 2, InterpolationMode.BICUBIC, antialias=True)
        return V.horizontal_flip(pixels) if self.mirror else pixels


def crop_box(
    height: int, width: int, area: float, aspect: float, top: float, left: float
) -> tuple[int, int, int, int]:
    """Top, left, height, width of the crop that four numbers in [0,1) stand for.

    The aspect is log-uniform; a crop that would stick out is narrowed to the picture.
    """
    pixels = height * width * (AREA[0] + area * (AREA[1] - AREA[0]))
    ratio = math.exp(math.log(ASPECT[0]) + aspect * math.log(ASPECT[1] / ASPECT[0]))
    h = max(1, min(height, round(math.sqrt(pixels / ratio))))
    w = max(1, min(width, round(math.sqrt(pixels * ratio))))
    return int(top * (height - h + 1)), int(left * (width - w + 1)), h, w
