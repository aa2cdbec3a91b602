"""What the feature cache keeps in one file: all frames that a set's items take of one film."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmavlm.core.errors import VideoError
from mmavlm.core.interfaces import VideoItem
from mmavlm.data.sampling import GRID_KEYS, frame_times, grid_times
from mmavlm.data.sources import FrameSource
from mmavlm.data.transforms import ClipTransform
from mmavlm.data.video import DECODING_VERSION

# Counts up when sampling or resizing give other frames for the same settings.
FRAMES_VERSION = 1
# Windows of one film share a file up to so many frames, which a process must hold at once.
MAX_FRAMES = 512

# start, end (infinite: to the end), frames of the grid by each of its keys (or -1)
Choice = tuple[float, float, int, int]


@dataclass(frozen=True)
class Sampling:
    """How many frames an item has, and the rate of the frame grid."""

    num_frames: int
    frame_fps: float


@dataclass(frozen=True)
class FilmFrames:
    """Decoded frames of an entry: uint8 (N,3,S,S), times (N,), and where each item's frames are.

    `rows` (R,T) int32 are indices of frames, a row for each of the entry's items, -1 behind the
    last; items that could not be read have none, and `problems` says why.
    """

    frames: Tensor
    times_s: Tensor
    rows: Tensor
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class FilmEntry:
    """One file of the cache: `items` of one film, each with another choice of frames.

    `key` names the file. It is a hash over film (name, size and time of change), choices and
    sampling, so that whatever changes makes another entry.
    """

    items: tuple[VideoItem, ...]
    sampling: Sampling
    key: str

    @property
    def video_id(self) -> str:
        """The film's name."""
        return self.items[0].video_id

    @property
    def most_frames(self) -> int:
        """How many frames it may hold; exact for windows on a grid."""
        return _most_frames(list(map(choice, self.items)), self.sampling)

    def decode(self, image_size: int) -> FilmFrames:
        """Its frames as evaluation sees them, each one decoded once.

        Raises:
            VideoError: if the film cannot be read, or no item's stretch lies within it.
        """
        source = FrameSource(self.items[0].source, self.sampling.frame_fps)
        times, problems = [], []
        for item in self.items:
            try:
                times.append(frame_times(item, source, self.sampling.num_frames, None))
            except VideoError as error:
                times.append([])
                problems.append(str(error))
        if not any(times):
            raise VideoError("; ".join(problems))
        union = np.unique(np.concatenate([np.asarray(t, np.float64) for t in times]))
        frames, times_s = source.read(union.tolist(), ClipTransform(image_size, None))
        rows = torch.full((len(times), self.sampling.num_frames), -1, dtype=torch.int32)
        for row, of_item in zip(rows, times, strict=True):
            row[: len(of_item)] = torch.from_numpy(np.searchsorted(union, of_item))
        return FilmFrames(frames, times_s, rows, tuple(problems))


class FilmPlan:
    """The entries that hold the frames of `items`, and where each item finds its own."""

    def __init__(self, items: Sequence[VideoItem], sampling: Sampling) -> None:
        self.entries: list[FilmEntry] = []
        self._places: dict[tuple[str, Path, Choice], tuple[FilmEntry, int]] = {}
        films: dict[tuple[str, Path], dict[Choice, VideoItem]] = {}
        for item in items:
            films.setdefault((item.video_id, item.source), {}).setdefault(choice(item), item)
        for (video_id, source), choices in films.items():
            film = [video_id, *_identity(source)]
            for group in _groups(sorted(choices), sampling):
                versions = [FRAMES_VERSION, DECODING_VERSION]
                told = [versions, film, sampling.num_frames, sampling.frame_fps, group]
                key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
                entry = FilmEntry(tuple(choices[c] for c in group), sampling, key)
                self.entries.append(entry)
                for row, chosen in enumerate(group):
                    self._places[video_id, source, chosen] = entry, row

    def place(self, item: VideoItem) -> tuple[FilmEntry, int]:
        """The entry that holds an item's frames, and which of its rows names them."""
        return self._places[item.video_id, item.source, choice(item)]


def choice(item: VideoItem) -> Choice:
    """What decides, beside film and sampling, which frames an item has."""
    end_s = math.inf if item.end_s is None else float(item.end_s)
    windows, segments = (int(item.meta.get(key, -1)) for key in GRID_KEYS)
    return float(item.start_s), end_s, windows, segments


def _groups(choices: Sequence[Choice], sampling: Sampling) -> Iterator[list[Choice]]:
    """Neighbouring choices, together up to `MAX_FRAMES` frames, but at least one."""
    group: list[Choice] = []
    for chosen in choices:
        if group and _most_frames([*group, chosen], sampling) > MAX_FRAMES:
            yield group
            group = []
        group.append(chosen)
    yield group


def _most_frames(choices: Sequence[Choice], sampling: Sampling) -> int:
    """What the choices take at most, frames that they share on a grid counted once."""
    on_grid: set[float] = set()
    others = 0
    for start_s, end_s, grid_frames, _ in choices:
        if grid_frames < 0 or math.isinf(end_s):
            others += sampling.num_frames
        else:
            times_s = grid_times(
                start_s, end_s, sampling.num_frames, grid_frames, sampling.frame_fps
            )
            on_grid.update(times_s)
    return len(on_grid) + others


def _identity(source: Path) -> list[int | str]:
    """What changes when a film does: its size and time of change, or those of all its pictures."""
    try:
        if source.is_dir():
            stats = [entry.stat() for entry in os.scandir(source)]
            changed = max((stat.st_mtime_ns for stat in stats), default=0)
            return ["frames", len(stats), sum(stat.st_size for stat in stats), changed]
        stat = source.stat()
    except OSError as error:  # told when it is decoded
        return ["unreadable", type(error).__name__]
    return [source.suffix, stat.st_size, stat.st_mtime_ns]
