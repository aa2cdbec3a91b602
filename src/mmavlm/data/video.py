"""Frames of a video file, exact by presentation time, with as little decoding as it takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from mmavlm.data.containers import opened
from mmavlm.data.cursor import Cursor, DamageFoundError
from mmavlm.data.orientation import orientation
from mmavlm.data.probe import VideoInfo, last_not_after, probe

log = logging.getLogger(__name__)

Picture = NDArray[np.uint8]  # (H,W,3)
ToTensor = Callable[[Picture], Tensor]  # (H,W,3) → uint8 (3,S,S)

# Counts up when films give other pictures, or the same ones at other times.
DECODING_VERSION = 2

# A time computed from a frame's own, rounded by container or float, must find that frame.
SAME_TIME_S = 5e-4

# FFmpeg warns of more.
MOST_THREADS = 16

# Since PyAV 17 conversion starts a thread for each core, for each file anew, if left to itself.
ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


# A decoder that conceals damage fills in from what it decoded before, which is less after a seek.
STRICT = {"err_detect": "explode"}


def decode_threads() -> int:
    """One in a worker of a DataLoader, whose siblings have the other cores; else PyTorch's number.

    That is the number of cores, or what OMP_NUM_THREADS says, as torchrun does to each rank.
    """
    return 1 if get_worker_info() else min(torch.get_num_threads(), MOST_THREADS)


def read_frames(
    path: Path,
    times_s: Sequence[float],
    to_tensor: ToTensor,
    *,
    info: VideoInfo | None = None,
    threads: int = 1,
) -> tuple[Tensor, Tensor]:
    """The frames shown at the ascending `times_s`: uint8 (T,3,S,S), their times (T,).

    See `shown_pictures` for what is shown when, and for errors.
    """
    info = probe(path) if info is None else info
    frames: Tensor | None = None
    found_s: list[float] = []
    last: Picture | None = None
    for i, (at_s, picture) in enumerate(shown_pictures(info, times_s, threads=threads)):
        if frames is None:
            tensor = to_tensor(picture)
            frames = torch.empty(len(times_s), *tensor.shape, dtype=torch.uint8)
            frames[i] = tensor
        else:
            frames[i] = frames[i - 1] if picture is last else to_tensor(picture)
        last = picture
        found_s.append(at_s)
    assert frames is not None  # there is at least one time, and each gives a picture or raises
    return frames, torch.tensor(found_s)


def shown_pictures(
    info: VideoInfo, times_s: Sequence[float], *, threads: int = 1
) -> Iterator[tuple[float, Picture]]:
    """One by one the pictures shown at the ascending `times_s`, with the times of their frames.

    Shown at t (in seconds) is the frame with the greatest presentation time not after t, counted
    from the first frame; before it the first, after the last the last. While it does not change the
    same array is given again. It is turned and mirrored as the file says (`orientation`), so that
    films of phones stand upright.

    Raises:
        VideoError: naming path, codec and time, if the file breaks off or cannot be decoded.
        ValueError: if `times_s` is empty or not ascending.
    """
    if not len(times_s) or any(a > b for a, b in pairwise(times_s)):
        raise ValueError(f"times_s must be ascending and not empty, got {list(times_s)}")
    slack = min(SAME_TIME_S / info.tick_s, 0.5)
    targets = np.floor(np.asarray(times_s, np.float64) / info.tick_s + slack).astype(np.int64)
    wanted = last_not_after(targets + info.start_pts, info.frame_pts).tolist()
    given = 0
    try:
        for shown in _pictures(info, wanted, threads, whole=False):
            yield shown
            given += 1
    except DamageFoundError:
        log.info("%s is damaged, or can be read from its start alone; decoded whole", info.path)
        yield from _pictures(info, wanted[given:], 1, whole=True)


def _pictures(
    info: VideoInfo, wanted: Sequence[int], threads: int, *, whole: bool
) -> Iterator[tuple[float, Picture]]:
    """The pictures of the `wanted` packets by their times; `whole` as of `Cursor`."""
    options = {} if whole else STRICT
    with opened(info.path, threads, options) as (container, stream):
        reformatter = VideoReformatter()  # one for the file: setting one up costs a frame's time
        before: int | None = None
        with closing(Cursor(container, stream, info, wanted, whole=whole)) as cursor:
            for pts in wanted:
                if pts != before:
                    at, frame = cursor.move_to(pts)
                    picture = as_shown(frame, reformatter, info.path)
                    before = pts
                yield info.seconds(at), picture
            if whole:
                cursor.see_the_rest()


def as_shown(frame: Any, reformatter: VideoReformatter, name: Path | str) -> Picture:
    """The picture (H,W,3) of a frame of PyAV, turned as it says; `name` is of what it is from."""
    rgb = reformatter.reformat(frame, format="rgb24", **ONE_THREAD)
    return orientation(frame, name).shown(rgb.to_ndarray().view(np.uint8))
