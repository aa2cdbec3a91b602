"""Items → samples: which frames, decoded and transformed, with their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from mmavlm.data.sampling import frame_times
from mmavlm.data.sources import FrameSource
from mmavlm.data.transforms import ClipTransform
from mmavlm.errors import ConfigError, VideoError
from mmavlm.interfaces import VideoItem


@dataclass(frozen=True)
class Sample:
    """One item with its frames, uint8 (T,3,S,S), and their times (T,) in seconds."""

    item: VideoItem
    frames: Tensor
    timestamps_s: Tensor


@dataclass(frozen=True)
class BrokenItem:
    """An item whose video could not be read, and why."""

    item: VideoItem
    reason: str
    image_size: int


class VideoDataset(Dataset[Sample | BrokenItem]):
    """The items of a split. In training frames are drawn at random, cropped and flipped.

    With `keep_frames` what was decoded once stays in memory, for sets that fit there: whole
    pictures at the times evaluation takes, still mirrored at random in training.

    Raises:
        ConfigError: if `keep_frames` and random crops are both asked for in training.
    """

    def __init__(
        self,
        items: Sequence[VideoItem],
        *,
        num_frames: int,
        image_size: int,
        frame_fps: float = 10.0,
        train: bool = False,
        crop: bool = True,
        flip: bool = True,
        keep_frames: bool = False,
        seed: int = 42,
    ) -> None:
        if keep_frames and train and crop:
            raise ConfigError(
                "data.keep_frames=true keeps whole pictures, so there is nothing to crop anew each "
                "epoch; set data.crop=false, or data.keep_frames=false"
            )
        self.items = list(items)
        self.num_frames = num_frames
        self.image_size = image_size
        self.frame_fps = frame_fps
        self.train = train
        self.crop = crop
        self.flip = flip
        self.keep_frames = keep_frames
        self.seed = seed
        self.kept: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at: int | tuple[int, int]) -> Sample | BrokenItem:
        """The item at an index, or at (epoch, index): what is drawn for it depends on both."""
        epoch, index = at if isinstance(at, tuple) else (0, at)
        item = self.items[index]
        rng = np.random.default_rng((self.seed, epoch, index)) if self.train else None
        try:
            source = FrameSource(item.source, self.frame_fps)
            chosen_by = None if self.keep_frames else rng
            times_s = frame_times(item, source, self.num_frames, chosen_by)
            frames, timestamps_s = self._read(source, times_s, rng)
        except VideoError as error:
            return BrokenItem(item, str(error), self.image_size)
        return Sample(item, frames, timestamps_s)

    def _read(
        self, source: FrameSource, times_s: Sequence[float], rng: np.random.Generator | None
    ) -> tuple[Tensor, Tensor]:
        transform = ClipTransform(self.image_size, rng, crop=self.crop, flip=self.flip)
        if not self.keep_frames:
            return source.read(times_s, transform)
        key = (source.path, *times_s)
        if key not in self.kept:
            self.kept[key] = source.read(times_s, ClipTransform(self.image_size, None))
        frames, timestamps_s = self.kept[key]
        return (frames.flip(-1) if transform.mirror else frames), timestamps_s
