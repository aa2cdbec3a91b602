"""Where frames come from: a video file, or a folder of extracted JPEGs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mmavlm.data.video import ToTensor, VideoInfo, probe, read_frames
from mmavlm.errors import ConfigError, DataError, VideoError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".ts")
FRAME_NAME = "frame{:06d}.jpg"  # counted from 1
KINDS = ("auto", "video", "frames")


def locate(root: Path, name: str, kind: str = "auto") -> Path:
    """The folder `<root>/frames/<name>` or the file `<root>/videos/<name>.<suffix>`.

    With `auto` an existing folder of frames comes first. A source that does not exist is returned
    all the same, as the place where it is missed.

    Raises:
        ConfigError: if `kind` is unknown.
        DataError: if the name leads out of the root.
    """
    if kind not in KINDS:
        raise ConfigError(f"data.reader.source={kind!r} is unknown; choose one of {KINDS}")
    folder = inside(root / "frames", name)
    if kind == "frames" or (kind == "auto" and folder.is_dir()):
        return folder
    stem = inside(root / "videos", name)
    for suffix in VIDEO_SUFFIXES:
        if (path := stem.with_name(stem.name + suffix)).is_file():
            return path
    return stem.with_name(stem.name + VIDEO_SUFFIXES[0])


def inside(root: Path, name: str) -> Path:
    """`root / name`, refusing names from an annotation that lead out of the root.

    Raises:
        DataError: naming both.
    """
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{name!r} leads out of {root}; names in an annotation stay below it")
    return path


class FrameSource:
    """One film, whichever way it is stored; `grid_fps` is the rate JPEGs were extracted at."""

    def __init__(self, path: Path, grid_fps: float) -> None:
        self.path = path
        self.grid_fps = grid_fps

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        if self.path.is_dir():
            return _count_frames(self.path) / self.grid_fps
        return _probed(self.path).duration_s

    @property
    def fps(self) -> float:
        """Its mean frame rate."""
        if self.path.is_dir():
            return self.grid_fps
        info = _probed(self.path)
        return len(info.frame_pts) / max(info.duration_s, info.tick_s)

    def read(self, times_s: Sequence[float], to_tensor: ToTensor) -> tuple[Tensor, Tensor]:
        """The frames shown at ascending times: uint8 (T,3,S,S), and their times (T,) in seconds.

        Raises:
            VideoError: naming the file and the reason.
        """
        if self.path.is_dir():
            return _read_jpegs(self.path, times_s, to_tensor, self.grid_fps)
        return read_frames(self.path, times_s, to_tensor, info=_probed(self.path))


@lru_cache(maxsize=4096)
def _probed(path: Path) -> VideoInfo:
    return probe(path)


def _count_frames(folder: Path) -> int:
    count = sum(1 for _ in folder.glob("frame*.jpg"))
    if not count:
        raise VideoError(f"{folder} holds no frames (frame000001.jpg and so on)")
    return count


def _read_jpegs(
    folder: Path, times_s: Sequence[float], to_tensor: ToTensor, fps: float
) -> tuple[Tensor, Tensor]:
    numbers = [round(t * fps) for t in times_s]
    pictures = []
    for number in numbers:
        path = folder / FRAME_NAME.format(number + 1)
        try:
            with Image.open(path) as image:
                pictures.append(to_tensor(np.asarray(image.convert("RGB"))))
        except FileNotFoundError:
            raise VideoError(
                f"{path} is missing; {folder} holds {_count_frames(folder)} frames. "
                "Extract them again, or correct num_frames in the annotation"
            ) from None
        except (UnidentifiedImageError, OSError) as error:
            raise VideoError(f"{path} cannot be read: {error}") from error
    return torch.stack(pictures), torch.tensor([number / fps for number in numbers])
