"""When to look: the times of a stretch of film at which frames are taken."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mmavlm.data.sources import FrameSource
from mmavlm.errors import VideoError
from mmavlm.interfaces import VideoItem

# Annotations and files disagree about the end of a film by less than this.
END_SLACK_S = 1.0
SAME_TIME_S = 1e-6


def lvu_windows(duration_s: int, history_s: int = 100, stride_s: int = 20) -> list[tuple[int, int]]:
    """Start and end (inclusive) of LVU's windows: one at 0, then every stride that still fits."""
    starts = [0, *range(stride_s, duration_s - history_s + 1, stride_s)]
    return [(start, min(start + history_s - 1, duration_s)) for start in starts]


def grid_times(
    start_s: float, end_s: float, num_frames: int, grid_frames: int, fps: float
) -> list[float]:
    """T times on the grid of frames extracted at `fps`, of which there are `grid_frames`.

    round(linspace(start·fps, min(end·fps, grid_frames − 1), T)), as MA-LMM samples LVU; a short
    window repeats frames.
    """
    last = min(end_s * fps, grid_frames - 1)
    first = min(start_s * fps, last)
    return [float(k) / fps for k in np.linspace(first, last, num_frames).round()]


def segment_times(
    times_s: NDArray[np.float64],
    start_s: float,
    end_s: float,
    num_frames: int,
    rng: np.random.Generator | None,
) -> list[float]:
    """Of the frames shown in [start, end), one in each of T equal segments, by their times.

    A random one of each segment, or (`rng` None) T evenly spaced from the first to the last. A
    stretch of fewer than T frames gives each of its frames once, so fewer than T.
    """
    first = max(int(np.searchsorted(times_s, start_s + SAME_TIME_S, side="right")) - 1, 0)
    stop = max(int(np.searchsorted(times_s, end_s - SAME_TIME_S)), first + 1)
    if stop - first <= num_frames:
        chosen = np.arange(first, stop)
    elif rng is None:
        chosen = np.linspace(first, stop - 1, num_frames).round().astype(np.int64)
    else:
        bounds = np.linspace(first, stop, num_frames + 1).astype(np.int64)
        chosen = np.array([rng.integers(a, b) for a, b in pairwise(bounds)])
    return times_s[chosen].tolist()


def frame_times(
    item: VideoItem, source: FrameSource, num_frames: int, rng: np.random.Generator | None
) -> list[float]:
    """The times to take for an item; `rng` given means training.

    An item whose annotation counts the frames of a grid (`meta["num_frames"]`) is sampled on that
    grid, as LVU is; any other by segments of the film's own frames.

    Raises:
        VideoError: if the stretch begins, or the grid goes on, after the end of the film.
    """
    duration_s = source.duration_s
    if item.start_s >= duration_s:
        raise VideoError(
            f"{source.path} lasts {duration_s:.3f} s, but item {item.item_id!r} starts at "
            f"{item.start_s:g} s; correct its start_s, or get the whole film"
        )
    end_s = duration_s if item.end_s is None else item.end_s
    if "num_frames" not in item.meta:
        return segment_times(source.times_s, item.start_s, end_s, num_frames, rng)
    grid_frames = int(item.meta["num_frames"])
    times_s = grid_times(item.start_s, end_s, num_frames, grid_frames, source.grid_fps)
    if times_s[-1] > duration_s + END_SLACK_S:
        raise VideoError(
            f"{source.path} lasts {duration_s:.3f} s, but item {item.item_id!r} goes on to "
            f"{times_s[-1]:g} s by the annotation's num_frames={grid_frames}; get the whole film"
        )
    return times_s
