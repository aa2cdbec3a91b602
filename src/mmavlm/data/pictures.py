"""Still pictures: one file, or a folder of the JPEGs of a film."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image

from mmavlm.core.errors import VideoError
from mmavlm.data.containers import MAX_PIXELS

if TYPE_CHECKING:  # readers of annotations, which look for films alone, wait for no torch
    from torch import Tensor

    from mmavlm.data.video import Picture, ToTensor

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
EXIF_TURNS: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
FRAME_NAME = "frame{:06d}.jpg"  # counted from 1
OTHER_SUFFIXES = (".jpeg", ".JPG", ".JPEG")  # that others may have given frames
EXTRACT = "extract the frames again"


def open_picture(path: Path) -> Picture:
    """The picture (H,W,3) of a file, turned as its EXIF data say.

    Raises:
        VideoError: if it is missing or cannot be read.
    """
    try:
        return _opened(path, "convert it to PNG, or get it again")
    except FileNotFoundError:
        raise VideoError(f"{path} does not exist") from None


def open_frame(folder: Path, number: int) -> Picture:
    """Frame `number` (H,W,3) of a folder, counted from 0, turned as its EXIF data say.

    Raises:
        VideoError: if it is missing or cannot be read.
    """
    path = folder / FRAME_NAME.format(number + 1)
    if not path.exists():
        others = (path.with_suffix(suffix) for suffix in OTHER_SUFFIXES)
        path = next((other for other in others if other.exists()), path)
    try:
        return _opened(path, EXTRACT)
    except FileNotFoundError:
        raise _missing(path, count_frames(folder)) from None


def read_folder(
    folder: Path, times_s: Sequence[float], to_tensor: ToTensor, fps: float
) -> tuple[Tensor, Tensor]:
    """The frames of a folder at some times: uint8 (T,3,S,S), and their times (T,) in seconds.

    Raises:
        VideoError: if one is missing or cannot be read.
    """
    import torch

    numbers = np.rint(np.asarray(times_s, np.float64) * fps).astype(np.int64)
    unique, places = np.unique(numbers, return_inverse=True)
    first = to_tensor(open_frame(folder, int(unique[0])))
    pictures = torch.empty(len(unique), *first.shape, dtype=torch.uint8)
    pictures[0] = first
    for i, number in enumerate(unique[1:].tolist(), start=1):
        pictures[i] = to_tensor(open_frame(folder, number))
    repeated = len(unique) < len(numbers)
    frames = pictures[torch.from_numpy(places)] if repeated else pictures
    return frames, torch.from_numpy(numbers / fps).float()


def count_frames(folder: Path) -> int:
    """How many frames a folder holds.

    Raises:
        VideoError: if it holds none, or some are missing in between.
    """
    pattern = re.compile(r"frame(\d{6,})\.(?:jpe?g|JPE?G)")
    names = (pattern.fullmatch(entry.name) for entry in os.scandir(folder))
    numbers = {int(name[1]) for name in names if name}
    if not numbers:
        raise VideoError(
            f"{folder} holds no frames ({FRAME_NAME.format(1)} and so on); extract them anew"
        )
    if missing := next((k for k in range(1, max(numbers)) if k not in numbers), None):
        raise _missing(folder / FRAME_NAME.format(missing), len(numbers))
    return len(numbers)


def _opened(path: Path, remedy: str) -> Picture:
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise VideoError(
                    f"{path} has {image.width}×{image.height} pixels, more than {MAX_PIXELS}; "
                    f"{remedy}"
                )
            # copied, as what Pillow lends cannot be written to, and torch warns of that
            return np.array(_upright(image).convert("RGB"))
    except FileNotFoundError:
        raise
    # what Pillow raises for pictures that it does not know, that are cut off, broken, or huge
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path} cannot be read: {error}; {remedy}") from error


def _upright(image: Image.Image) -> Image.Image:
    """The picture as its EXIF data say; ImageOps.exif_transpose fails where others are broken."""
    turn = EXIF_TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    return image if turn is None else image.transpose(turn)


def _missing(path: Path, there: int) -> VideoError:
    return VideoError(
        f"{path} is missing; the folder holds {there} frames. Extract them again, or correct the "
        "annotation's count (mmavlm prepare … write_counts=true)"
    )
