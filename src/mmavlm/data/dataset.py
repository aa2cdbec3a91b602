"""Items → samples: which frames, decoded and transformed, with their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.core.interfaces import VideoItem
from mmavlm.data.feature_cache import CachedFilms
from mmavlm.data.film_entries import choice
from mmavlm.data.order import Length
from mmavlm.data.probe_index import ProbeIndex
from mmavlm.data.sampling import GRID_KEYS, frame_times
from mmavlm.data.sources import FrameSource
from mmavlm.data.transforms import ClipTransform


@dataclass(frozen=True)
class Sample:
    """One item with its frames and their times (T,) in seconds.

    Frames are uint8 (T,3,S,S), or, from the feature cache, frame tokens float16 (T,P,Dv).
    """

    item: VideoItem
    frames: Tensor
    timestamps_s: Tensor


@dataclass(frozen=True)
class BrokenItem:
    """An item whose video could not be read, and why; `blank` has no frames of the set's shape."""

    item: VideoItem
    reason: str
    blank: Tensor


class VideoDataset(Dataset[Sample | BrokenItem]):
    """The items of a split. In training frames are drawn at random, cropped and flipped.

    With `keep_frames` what was decoded once stays in memory, for sets that fit there: whole
    pictures at the times evaluation takes, still mirrored at random in training. With `features`
    nothing is decoded: frames are those of the feature cache, at the times evaluation takes.

    Raises:
        ConfigError: if training is to draw crops or mirror images of what is kept or cached.
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
        features: CachedFilms | None = None,
        index: ProbeIndex | None = None,
        decode_threads: int | None = None,
        seed: int = 42,
    ) -> None:
        if train:
            refuse_augmentation(
                crop=crop, flip=flip, keep_frames=keep_frames, cached=features is not None
            )
        self.items = list(items)
        self.num_frames = num_frames
        self.image_size = image_size
        self.frame_fps = frame_fps
        self.train = train
        self.crop = crop
        self.flip = flip
        self.keep_frames = keep_frames
        self.features = features
        self.index = index
        self.decode_threads = decode_threads
        self.seed = seed
        self.kept: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at: int | tuple[int, int]) -> Sample | BrokenItem:
        """The item at an index, or at (pass, index): what is drawn for it depends on both."""
        number, index = at if isinstance(at, tuple) else (0, at)
        item = self.items[index]
        rng = np.random.default_rng((self.seed, number, index)) if self.train else None
        try:
            if self.features is None:
                frames, timestamps_s = self._decode(item, rng)
            else:
                frames, timestamps_s = self._look_up(item, self.features)
        except VideoError as error:
            return BrokenItem(item, str(error), self._blank())
        return Sample(item, frames, timestamps_s)

    def source(self, index: int) -> Path:
        """The file or folder that an item is read from."""
        return self.items[index].source

    def lengths(self) -> list[Length]:
        """How many frames and words each item has; films are looked up, not decoded."""
        return [(self._num_frames(item), _words(item)) for item in self.items]

    def _num_frames(self, item: VideoItem) -> int:
        if any(key in item.meta for key in GRID_KEYS):
            return self.num_frames  # a grid repeats frames rather than give fewer
        try:
            return len(frame_times(item, self._source(item), self.num_frames, None))
        except VideoError:  # told when it is loaded
            return self.num_frames

    def _look_up(self, item: VideoItem, features: CachedFilms) -> tuple[Tensor, Tensor]:
        if not self.keep_frames:
            return features.read(item)
        key = (item.video_id, item.source, *choice(item))
        if key not in self.kept:
            self.kept[key] = features.read(item)
        return self.kept[key]

    def _blank(self) -> Tensor:
        if self.features is not None:
            return self.features.blank
        return torch.zeros(0, 3, self.image_size, self.image_size, dtype=torch.uint8)

    def _decode(self, item: VideoItem, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        source = self._source(item)
        times_s = frame_times(item, source, self.num_frames, None if self.keep_frames else rng)
        return self._read(source, times_s, rng)

    def _source(self, item: VideoItem) -> FrameSource:
        return FrameSource(
            item.source, self.frame_fps, index=self.index, threads=self.decode_threads
        )

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


def _words(item: VideoItem) -> int:
    return len(item.prompt.split()) + len(item.target.split())


def refuse_augmentation(*, crop: bool, flip: bool, keep_frames: bool, cached: bool) -> None:
    """Refuse what a training run draws anew each epoch of pictures that are there once and for all.

    Raises:
        ConfigError: naming what excludes each other.
    """
    if cached and (crop or flip):
        raise ConfigError(
            "data.cache holds features of whole pictures, so there is nothing to crop or mirror "
            "anew each epoch; set data.crop=false data.flip=false, or data.cache=null"
        )
    if keep_frames and crop:
        raise ConfigError(
            "data.keep_frames=true keeps whole pictures, so there is nothing to crop anew each "
            "epoch; set data.crop=false, or data.keep_frames=false"
        )
