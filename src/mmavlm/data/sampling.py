"""When to look: the times of a stretch of film at which frames are taken."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mmavlm.core.errors import VideoError
from mmavlm.core.medium import FrameGrid, Medium
from mmavlm.data.sources import FrameSource

# Annotations and files disagree about the end of a film by less than this.
END_SLACK_S = 1.0
SAME_TIME_S = 1e-6


class StretchError(VideoError):
    """A film that is there lacks what is asked of it: the annotation or the film is wrong."""


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
        return times_s[first:stop].tolist()
    return times_s[segment_numbers(first, stop, num_frames, rng)].tolist()


def segment_numbers(
    first: int,
    stop: int,
    num_frames: int,
    rng: np.random.Generator | None,
    *,
    cut_down: bool = False,
) -> NDArray[np.int64]:
    """T of the frames [first, stop), one in each of T equal segments with whole bounds.

    A random one of each segment, or (`rng` None) T evenly spaced from the first to the last,
    rounded or cut down to whole ones, as MA-LMM takes them outside LVU; fewer frames than T are
    repeated.
    """
    if rng is None:
        even = np.linspace(first, stop - 1, num_frames)
        return (np.floor if cut_down else np.rint)(even).astype(np.int64)
    bounds = np.linspace(first, stop, num_frames + 1).astype(np.int64)
    return np.array([rng.integers(a, max(b, a + 1)) for a, b in pairwise(bounds)], np.int64)


def rate_times(
    times_s: NDArray[np.float64], start_s: float, end_s: float, num_frames: int, fps: float
) -> list[float]:
    """The frames shown at start_s + k/fps, by their times, up to the last entire step before end_s.

    They are at least one, and at most T, the first ones. A frame that is shown at several of these
    moments is given once. (MMDuet, arXiv 2411.17991.)
    """
    moments = max(int((end_s - start_s) * fps + SAME_TIME_S), 1)
    at_s = start_s + np.arange(moments) / fps
    shown = np.searchsorted(times_s, at_s + SAME_TIME_S, side="right") - 1
    return times_s[np.unique(shown.clip(0))[:num_frames]].tolist()


def frame_times(
    medium: Medium,
    source: FrameSource,
    num_frames: int,
    rng: np.random.Generator | None,
    sample_fps: float | None = None,
) -> list[float]:
    """The times to take of a film or picture; `rng` given means training.

    With `sample_fps` these are so many a second (`rate_times`), in training, too. Else:
    Where the annotation counts the frames of a grid, that grid is sampled: evenly, as LVU is
    (`windows`), or by segments, in evaluation rounded, but of YouCook2's stretches of films cut
    down, as in MA-LMM's code. Any other film is sampled by segments of its own frames.

    Raises:
        StretchError: if the stretch begins, or the grid goes on, after the end of the film.
        VideoError: if the film cannot be read.
    """
    duration_s, grid = source.duration_s, medium.grid
    if medium.start_s >= duration_s:
        raise StretchError(
            f"{source.path} lasts {duration_s:.3f} s, but is asked about from "
            f"{medium.start_s:g} s on; correct its start_s, or get the whole film"
        )
    end_s = duration_s if medium.end_s is None else medium.end_s
    if sample_fps is not None:
        last_s = min(end_s, duration_s)
        return rate_times(source.times_s, medium.start_s, last_s, num_frames, sample_fps)
    if grid is None:
        return segment_times(source.times_s, medium.start_s, end_s, num_frames, rng)
    fps = source.grid_fps
    if grid.sampling == "windows":
        times_s = grid_times(medium.start_s, end_s, num_frames, grid.frames, fps)
    else:
        first, stop = _stretch(medium, grid, fps)
        cut_down = medium.end_s is not None
        numbers = segment_numbers(first, stop, num_frames, rng, cut_down=cut_down)
        times_s = [float(k) / fps for k in numbers]
    if times_s[-1] > duration_s + END_SLACK_S:
        raise StretchError(
            f"{source.path} lasts {duration_s:.3f} s, but goes on to {times_s[-1]:g} s by the "
            f"{grid.frames} frames that its annotation counts; get the whole film, or correct "
            "the count (mmavlm prepare … write_counts=true)"
        )
    return times_s


def _stretch(medium: Medium, grid: FrameGrid, fps: float) -> tuple[int, int]:
    """The frames [first, stop) of a grid that a stretch takes, its last moment included."""
    first = int(medium.start_s * fps + SAME_TIME_S)
    if first >= grid.frames:
        raise StretchError(
            f"{medium.source} is asked about from {medium.start_s:g} s on, behind the "
            f"{grid.frames} frames that its annotation counts; correct one of them"
        )
    if medium.end_s is None:
        return first, grid.frames
    return first, min(int(medium.end_s * fps + SAME_TIME_S) + 1, grid.frames)
