"""Frames of a video file, exact by presentation time, with as little decoding as it takes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from torch import Tensor

from mmavlm.errors import VideoError

Picture = NDArray[np.uint8]  # (H,W,3)
ToTensor = Callable[[Picture], Tensor]  # (H,W,3) → uint8 (3,S,S)

# A header may promise a few frames more than there are (edit lists, dropped duplicates).
FRAMES_THAT_MUST_COME = 0.98


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds, read off its packets; `frame_pts` and `keyframe_pts` ascend."""

    path: Path
    codec: str
    width: int
    height: int
    duration_s: float
    frame_pts: tuple[int, ...]
    keyframe_pts: tuple[int, ...]
    tick_s: float

    @property
    def start_pts(self) -> int:
        """The time of the first frame, from which all seconds are counted."""
        return self.frame_pts[0]

    def seconds(self, pts: int) -> float:
        """A presentation time in seconds from the first frame."""
        return (pts - self.start_pts) * self.tick_s

    def last_not_after(self, pts: int, of: Sequence[int]) -> int:
        """The greatest of `of` not after `pts`, or the first one."""
        return of[max(bisect_right(of, pts) - 1, 0)]


def probe(path: Path) -> VideoInfo:
    """Read the packets of a video file without decoding them; headers are not trusted for times.

    Raises:
        VideoError: naming path and reason, if there is no video in it or it is cut off.
    """
    with _opened(path) as (container, stream):
        packets = [p for p in container.demux(stream) if p.pts is not None and not p.is_discard]
        context = stream.codec_context
        keyframes = sorted(p.pts for p in packets if p.is_keyframe)
        if not keyframes:
            raise VideoError(f"{path} ({context.name}) holds no frame that can be decoded")
        # what precedes the first key frame refers to frames the file does not have
        frames = sorted(p.pts for p in packets if p.pts >= keyframes[0])
        if len(packets) < FRAMES_THAT_MUST_COME * stream.frames:
            raise VideoError(
                f"{path} ({context.name}) is cut off: its header promises {stream.frames} frames, "
                f"{len(packets)} are there; copy or download it again"
            )
        end = max(p.pts + (p.duration or 0) for p in packets)
        tick_s = float(stream.time_base)
        return VideoInfo(
            path=path,
            codec=context.name,
            width=context.width,
            height=context.height,
            duration_s=(end - frames[0]) * tick_s,
            frame_pts=tuple(frames),
            keyframe_pts=tuple(keyframes),
            tick_s=tick_s,
        )


def read_frames(
    path: Path,
    times_s: Sequence[float],
    to_tensor: ToTensor,
    *,
    info: VideoInfo | None = None,
    threads: int = 1,
) -> tuple[Tensor, Tensor]:
    """The frames shown at the ascending `times_s`: uint8 (T,3,S,S), their times (T,).

    Shown at t (in seconds) is the frame with the greatest presentation time not after t, counted
    from the first frame; before it the first, after the last the last. A rotation in the header is
    not applied.

    Raises:
        VideoError: naming path and codec, if the file breaks off or cannot be decoded.
        ValueError: if `times_s` is empty or not ascending.
    """
    if not times_s or any(a > b for a, b in pairwise(times_s)):
        raise ValueError(f"times_s must be ascending and not empty, got {list(times_s)}")
    info = probe(path) if info is None else info
    # Half a tick of slack: a time computed from a frame's own pts must find that frame.
    targets = [round(t / info.tick_s) + info.start_pts for t in times_s]
    pictures: Tensor | None = None
    pts: list[int] = []
    with _opened(path, threads) as (container, stream):
        cursor = _Cursor(container, stream, info)
        reformatter = VideoReformatter()  # one for the file: setting one up costs a frame's time
        for i, target in enumerate(targets):
            frame = cursor.move_to(target)
            if i and frame.pts == pts[-1]:
                assert pictures is not None
                pictures[i] = pictures[i - 1]
            else:
                rgb = reformatter.reformat(frame, format="rgb24")
                picture = to_tensor(rgb.to_ndarray().view(np.uint8))
                if pictures is None:
                    pictures = torch.empty(len(targets), *picture.shape, dtype=torch.uint8)
                pictures[i] = picture
            pts.append(frame.pts)
    assert pictures is not None  # there is at least one target, and each gives a frame or raises
    return pictures, torch.tensor([info.seconds(p) for p in pts])


class _Cursor:
    """A decoder that moves forward through a file, seeking only over whole groups of pictures."""

    def __init__(self, container: Any, stream: Any, info: VideoInfo) -> None:
        self.container = container
        self.stream = stream
        self.info = info
        self.shown: Any = None  # the latest frame decoded that is not after the target
        self.coming: Any = None  # the one behind it, if it had to be decoded already
        self.frames: Iterator[Any] = container.decode(stream)

    def move_to(self, target: int) -> Any:
        """The frame shown at `target` (pts)."""
        keyframe = self.info.last_not_after(target, self.info.keyframe_pts)
        decoded = self.coming or self.shown
        if keyframe > (self.info.start_pts if decoded is None else decoded.pts):
            self._seek(keyframe)
        while True:
            if self.coming is None:
                self.coming = next(self.frames, None)
            if self.coming is None or (self.shown is not None and self.coming.pts > target):
                break
            self.shown, self.coming = self.coming, None
        expected = self.info.last_not_after(target, self.info.frame_pts)
        if self.shown is None or (self.coming is None and self.shown.pts < expected):
            at_s = 0.0 if self.shown is None else self.info.seconds(self.shown.pts)
            raise VideoError(
                f"{self.info.path} ({self.info.codec}) breaks off at {at_s:.3f} s of "
                f"{self.info.duration_s:.3f} s: nothing decodes up to "
                f"{self.info.seconds(target):.3f} s"
            )
        return self.shown

    def _seek(self, keyframe: int) -> None:
        self.container.seek(keyframe, stream=self.stream)
        self.frames = self.container.decode(self.stream)
        self.shown, self.coming = None, next(self.frames, None)
        if self.coming is not None and self.coming.pts > keyframe:
            # Some containers have no exact index; then all frames from the first are decoded.
            self.container.seek(self.info.start_pts, stream=self.stream)
            self.frames = self.container.decode(self.stream)
            self.coming = None


@contextmanager
def _opened(path: Path, threads: int = 1) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream; every failure of FFmpeg becomes a VideoError."""
    if not path.is_file():
        raise VideoError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise VideoError(f"{path} is empty (0 bytes)")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f"{path} has no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = threads
            stream.thread_type = "NONE" if threads == 1 else "AUTO"
            yield container, stream
    except (av.FFmpegError, EOFError) as error:
        raise VideoError(f"{path} cannot be decoded: {error}") from error
