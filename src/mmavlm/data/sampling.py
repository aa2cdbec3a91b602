"""When to look: the times of a stretch of film at which frames are taken."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mmavlm.interfaces import VideoItem


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
    start_s: float, end_s: float, num_frames: int, fps: float, rng: np.random.Generator | None
) -> list[float]:
    """One time in each of T equal segments of [start, end): a random one, or evenly spaced.

    A stretch of fewer than T frames gives each of its frames once, so fewer than T.
    """
    first = round(start_s * fps)
    stop = max(round(end_s * fps), first + 1)
    if stop - first <= num_frames:
        return [k / fps for k in range(first, stop)]
    if rng is None:
        return [float(k) / fps for k in np.linspace(first, stop - 1, num_frames).round()]
    bounds = np.linspace(first, stop, num_frames + 1).astype(int)
    return [float(rng.integers(a, b)) / fps for a, b in pairwise(bounds)]


def frame_times(
    item: VideoItem,
    num_frames: int,
    *,
    duration_s: float,
    fps: float,
    grid_fps: float,
    rng: np.random.Generator | None,
) -> list[float]:
    """The times to take for an item; `rng` given means training.

    An item whose annotation counts the frames of a grid (`meta["num_frames"]`) is sampled on that
    grid, as LVU is; any other by segments of the film's own frames.
    """
    end_s = duration_s if item.end_s is None else item.end_s
    if "num_frames" in item.meta:
        return grid_times(item.start_s, end_s, num_frames, int(item.meta["num_frames"]), grid_fps)
    return segment_times(item.start_s, min(end_s, duration_s), num_frames, fps, rng)
