"""Frames of a video file, exact by presentation time, with as little decoding as it takes."""

from __future__ import annotations

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
Ticks = NDArray[np.int64]
Decoded = tuple[int, Any]  # display time (pts) and frame

# A header may promise a few frames more than there are (edit lists, dropped duplicates).
SHARE_THAT_MUST_COME = 0.98
HEADER_SLACK_S = 1.0

# A time computed from a frame's own, rounded by container or float, must find that frame.
SAME_TIME_S = 5e-4

# Some codecs pack placeholders and second fields into packets that give no frame of their own.
PACKETS_WITHOUT_FRAME = 3


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """What a file holds, read off its packets; `frame_pts` and `keyframe_pts` ascend.

    `width` and `height` are the coded ones, before any rotation. `in_order` says that packets give
    no display times, so that these hold only for a file decoded from its start.
    """

    path: Path
    codec: str
    width: int
    height: int
    duration_s: float
    frame_pts: Ticks
    keyframe_pts: Ticks
    tick_s: float
    in_order: bool = False

    @property
    def start_pts(self) -> int:
        """The time of the first frame, from which all seconds are counted."""
        return int(self.frame_pts[0])

    @property
    def fps(self) -> float:
        """The mean frame rate."""
        return len(self.frame_pts) / max(self.duration_s, self.tick_s)

    @property
    def times_s(self) -> NDArray[np.float64]:
        """The time of every frame in seconds from the first."""
        return self.seconds(self.frame_pts)

    def seconds(self, pts: Any) -> Any:
        """Presentation times in seconds from the first frame."""
        return (pts - self.start_pts) * self.tick_s


def probe(path: Path) -> VideoInfo:
    """Read the packets of a video file without decoding them; headers are not trusted for times.

    Raises:
        VideoError: naming path and reason, if there is no video in it or it is cut off.
    """
    with _opened(path) as (container, stream):
        codec = stream.codec_context.name
        packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
        timed = [p for p in packets if p.pts is not None]
        end = max((p.pts + (p.duration or 0) for p in timed), default=0)
        _refuse_cut_off(path, container, stream, len(packets), end)
        keyframes = np.array(sorted(p.pts for p in timed if p.is_keyframe), np.int64)
        if not len(keyframes):
            raise VideoError(
                f"{path} ({codec}) holds {len(packets)} frames, none of them a key frame with a "
                "display time; convert it to mp4"
            )
        # what precedes the first key frame refers to frames the file does not have
        frames = np.array(sorted(p.pts for p in timed if p.pts >= keyframes[0]), np.int64)
        tick_s = float(stream.time_base)
        # AVI numbers packets as they come: where their frames are reordered, the numbers are not
        # those of the frames.
        numbered = all(a.pts < b.pts for a, b in pairwise(timed))
        reordered = stream.codec_context.has_b_frames
        in_order = bool(container.format.name == "avi" and reordered and numbered)
        return VideoInfo(
            path=path,
            codec=codec,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            duration_s=float((end - frames[0]) * tick_s),
            frame_pts=frames,
            keyframe_pts=keyframes[:1] if in_order else keyframes,
            tick_s=tick_s,
            in_order=in_order,
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
    same array is given again. A rotation in the header is applied, so that films of phones stand
    upright.

    Raises:
        VideoError: naming path, codec and time, if the file breaks off or cannot be decoded.
        ValueError: if `times_s` is empty or not ascending.
    """
    if not len(times_s) or any(a > b for a, b in pairwise(times_s)):
        raise ValueError(f"times_s must be ascending and not empty, got {list(times_s)}")
    slack = min(SAME_TIME_S / info.tick_s, 0.5)
    targets = np.floor(np.asarray(times_s, np.float64) / info.tick_s + slack).astype(np.int64)
    wanted = _last_not_after(targets + info.start_pts, info.frame_pts)
    with _opened(info.path, threads) as (container, stream):
        cursor = _Cursor(container, stream, info)
        reformatter = VideoReformatter()  # one for the file: setting one up costs a frame's time
        before: int | None = None
        for pts in wanted.tolist():
            if pts != before:
                at, frame = cursor.move_to(pts)
                picture = reformatter.reformat(frame, format="rgb24").to_ndarray().view(np.uint8)
                if frame.rotation:
                    picture = np.rot90(picture, round(frame.rotation / 90))
                before = pts
            yield info.seconds(at), picture


class _Cursor:
    """A decoder that moves forward through a file, seeking only over whole groups of pictures."""

    def __init__(self, container: Any, stream: Any, info: VideoInfo) -> None:
        self.container = container
        self.stream = stream
        self.info = info
        self.shown: Decoded | None = None  # the latest one not after what was asked for
        self.coming: Decoded | None = None  # the one behind it, if it had to be decoded already
        self.frames = self._decoded()

    def move_to(self, pts: int) -> Decoded:
        """The frame shown at `pts`, the time of a packet not before the one asked for last."""
        keyframe = int(_last_not_after(pts, self.info.keyframe_pts))
        decoded = self.coming or self.shown
        if keyframe > (self.info.start_pts if decoded is None else decoded[0]):
            self._seek(keyframe)
        while self.shown is None or self.shown[0] < pts:
            self.coming = self.coming or next(self.frames, None)
            if self.coming is None or self.coming[0] > pts:
                break
            self.shown, self.coming = self.coming, None
        if self.shown is None or self._hidden(self.shown[0], pts) > self._may_hide():
            raise self._broken_off(f"no frame decodes for {self._second(pts)} s")
        return self.shown

    def _hidden(self, shown: int, pts: int) -> int:
        """How many packets after the frame at `shown`, up to `pts`, gave no frame."""
        first, last = np.searchsorted(self.info.frame_pts, (shown, pts))
        return int(last - first)

    def _may_hide(self) -> int:
        return 0 if self.coming is None else PACKETS_WITHOUT_FRAME

    def _decoded(self) -> Iterator[Decoded]:
        """Frames from here on with their display times."""
        last = len(self.info.frame_pts) - 1
        try:
            for index, frame in enumerate(self.container.decode(self.stream)):
                if self.info.in_order:
                    yield int(self.info.frame_pts[min(index, last)]), frame
                elif frame.pts is not None and frame.pts >= self.info.start_pts:
                    yield frame.pts, frame
        except (av.FFmpegError, EOFError) as error:
            raise self._broken_off(str(error)) from error

    def _seek(self, keyframe: int) -> None:
        self.container.seek(keyframe, stream=self.stream)
        self.frames = self._decoded()
        self.shown, self.coming = None, next(self.frames, None)
        if self.coming is None or self.coming[0] > keyframe:
            # Some containers have no exact index; then all frames from the first are decoded.
            self.container.seek(self.info.start_pts, stream=self.stream)
            self.frames = self._decoded()
            self.coming = None

    def _second(self, pts: int) -> str:
        return f"{self.info.seconds(pts):.3f}"

    def _broken_off(self, why: str) -> VideoError:
        reached = "at its start" if self.shown is None else f"after {self._second(self.shown[0])} s"
        return VideoError(
            f"{self.info.path} ({self.info.codec}) breaks off {reached} of "
            f"{self.info.duration_s:.3f} s: {why}"
        )


def _last_not_after(pts: Any, of: Ticks) -> Any:
    """The greatest of `of` not after each of `pts`, or the first one."""
    return of[np.maximum(np.searchsorted(of, pts, side="right") - 1, 0)]


def _refuse_cut_off(path: Path, container: Any, stream: Any, came: int, end: int) -> None:
    """Refuse a file with fewer frames, or where these are not counted seconds, than it says."""
    slots = container.format.name == "avi"  # AVI counts slots for frames, some of them empty
    if stream.frames and not slots:
        if came >= SHARE_THAT_MUST_COME * stream.frames:
            return
        promised, there = f"{stream.frames} frames", f"{came}"
    else:
        tick_s, length_s = float(stream.time_base), (container.duration or 0) / av.time_base
        length_s = stream.frames * tick_s if slots else length_s
        enough_s = min(SHARE_THAT_MUST_COME * length_s, length_s - HEADER_SLACK_S)
        end_s = end * tick_s
        if end_s >= enough_s or (end_s := _end_of_all_s(container)) >= enough_s:
            return
        promised, there = f"{length_s:.3f} s", f"{end_s:.3f} s"
    raise VideoError(
        f"{path} ({stream.codec_context.name}) is cut off: its header promises {promised}, "
        f"{there} are there; copy or download it again"
    )


def _end_of_all_s(container: Any) -> float:
    """When the last packet of any stream ends: sound may rightly go on behind the picture."""
    container.seek(container.start_time or 0)
    packets = (p for p in container.demux() if p.pts is not None)
    return max(float((p.pts + (p.duration or 0)) * p.time_base) for p in packets)


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
