"""Frames as a model that watches takes them: one by one, of a film or of any Python iterable."""

from __future__ import annotations

import math
import re
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
from torch import Tensor

from mmavlm.core.errors import ConfigError, DataError, VideoError
from mmavlm.core.medium import Medium
from mmavlm.core.redaction import redacted
from mmavlm.core.settings import above_zero, at_least, whole_at_least
from mmavlm.data.sampling import frame_times
from mmavlm.data.sources import GRID_FPS, FrameSource
from mmavlm.data.transforms import ClipTransform
from mmavlm.data.video import Picture

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # one letter is a drive of Windows

# Of a film that is further behind the clock, what was missed is not decoded but left out.
FAR_BEHIND_S = 10.0


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """A frame (3,S,S), uint8, and its time: in the film, or since a camera's first picture.

    `missed` counts the frames at the asked rate that came and went since the one before, because
    the reader was slower.
    """

    time_s: float
    frame: Tensor
    missed: int = 0


def film_frames(
    path: str | Path,
    fps: float,
    image_size: int,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    realtime: bool = False,
    grid_fps: float = GRID_FPS,
) -> Iterator[LiveFrame]:
    """One by one, in constant memory, the frames of a film or folder shown at start_s + k/fps.

    They are those, and at those times, that training takes with `sample_fps` (`rate_times`): a
    frame shown at several of these moments comes once. With `realtime` they come when the film
    would show them, and a reader that is slower misses some. `grid_fps` is that of a folder.

    Raises:
        ConfigError: if a number does not fit.
        VideoError: if the film cannot be read, or ends before `start_s`; if it is an address.
    """
    above_zero("", fps=fps, grid_fps=grid_fps)
    at_least("", 0, start_s=start_s)
    whole_at_least("", 1, image_size=image_size)
    if end_s is not None and not end_s > start_s:
        raise ConfigError(f"end_s must be after start_s={start_s:g}, got {end_s:g}")
    source = FrameSource(_file(path), grid_fps)
    stretch = Medium(medium_id=source.path.name, source=source.path, start_s=start_s, end_s=end_s)
    times_s = frame_times(stretch, source, sys.maxsize, None, fps)
    transform = ClipTransform(image_size, None)
    return (_as_it_runs if realtime else _in_turn)(source, times_s, transform)


def given_frames(pairs: Iterable[tuple[float, Any]], image_size: int) -> Iterator[LiveFrame]:
    """The frames of any iterable of times (in seconds, ascending) and pictures.

    A picture is RGB and uint8, of any size: a tensor (3,H,W), or an array or Pillow image (H,W,3).
    What is given may be written to again: frames are copies.

    Raises:
        DataError: naming the number of the frame, counted from 0, whose time or picture does not
            fit.
    """
    whole_at_least("", 1, image_size=image_size)
    return _given(pairs, ClipTransform(image_size, None))


def _file(path: str | Path) -> Path:
    if ADDRESS.match(str(path)) and not Path(path).exists():
        address = re.sub(":/+", "://", str(path), count=1)  # a Path has one of two slashes
        raise VideoError(
            f"{redacted(address)} is an address, and films are read from files alone; "
            "download it, or give it as a camera"
        )
    return Path(path)


def _in_turn(
    source: FrameSource, times_s: list[float], transform: ClipTransform
) -> Iterator[LiveFrame]:
    for time_s, picture in zip(times_s, source.pictures(times_s), strict=True):
        yield LiveFrame(time_s, transform(picture))


def _as_it_runs(
    source: FrameSource, times_s: list[float], transform: ClipTransform
) -> Iterator[LiveFrame]:
    """The frames when their time has come, by a clock that starts when the first is there."""
    pictures = source.pictures(times_s)
    coming, began_s = 0, -math.inf
    while coming < len(times_s):
        now_s = times_s[0] + monotonic() - began_s if coming else times_s[0]
        shown = max(coming, bisect_right(times_s, now_s) - 1)
        if times_s[shown] - times_s[coming] > FAR_BEHIND_S:
            pictures = source.pictures(times_s[shown:])
        else:
            for _ in range(coming, shown):
                next(pictures)
        frame = transform(next(pictures))
        if not coming:
            began_s = monotonic()
        sleep(max(0.0, began_s + times_s[shown] - times_s[0] - monotonic()))
        yield LiveFrame(times_s[shown], frame, shown - coming)
        coming = shown + 1


def _given(pairs: Iterable[tuple[float, Any]], transform: ClipTransform) -> Iterator[LiveFrame]:
    before_s = -math.inf
    for number, pair in enumerate(pairs):
        try:
            time_s, picture = float(pair[0]), pair[1]
        except (TypeError, ValueError, IndexError):
            raise DataError(
                f"frame {number} is a {type(pair).__name__}; give time (seconds) and picture"
            ) from None
        if not before_s < time_s < math.inf:
            after = f"after {before_s:g} s, that of the frame before" if number else "in seconds"
            raise DataError(f"frame {number} is of {time_s:g} s; its time must be {after}")
        before_s = time_s
        yield LiveFrame(time_s, transform(_picture(picture, number)))


def _picture(given: Any, number: int) -> Picture:
    """A copy (H,W,3) of a picture, which its owner may write to again."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        pixels = (given.permute(1, 2, 0) if given.ndim == 3 else given).numpy()
    else:
        pixels = np.asarray(given)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DataError(
            f"the picture of frame {number} is {type(given).__name__} of {pixels.dtype} and shape "
            f"{tuple(given.shape if isinstance(given, Tensor) else pixels.shape)}; expected uint8, "
            "(H,W,3) of an array or (3,H,W) of a tensor"
        )
    return pixels.copy()
