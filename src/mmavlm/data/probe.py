"""What a video file holds, read off its packets without decoding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from mmavlm.errors import VideoError

Ticks = NDArray[np.int64]

# A header may promise a few frames more than there are (edit lists, dropped duplicates).
SHARE_THAT_MUST_COME = 0.98
HEADER_SLACK_S = 1.0

# More than 8K (7680×4320): a header that says so is hostile, and a frame would take gigabytes.
MAX_PIXELS = 8192 * 8192

# Films, and pictures as films of one frame: playlists and lists of files, which FFmpeg also takes
# for films, open other files.
CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,m4v,ivf,obu,av1,gif,"
    "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe"
)


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
    with opened(path) as (container, stream):
        codec = stream.codec_context.name
        _refuse_huge(path, stream)
        packets = [
            Packet(p.pts, p.dts, p.duration or 0, p.is_keyframe, p.is_corrupt)
            for p in _demuxed(path, container, stream)
            if p.size and not p.is_discard
        ]
        timed = [p for p in packets if p.pts is not None]
        end = max((p.pts + p.duration for p in timed), default=0)
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
            keyframe_pts=keyframes[:1] if in_order or _disturbed(packets) else keyframes,
            tick_s=tick_s,
            in_order=in_order,
        )


class Packet(NamedTuple):
    """What probing keeps of a packet; its content would be the whole file."""

    pts: Any
    dts: int | None
    duration: int
    is_keyframe: bool
    is_corrupt: bool


def _disturbed(packets: Sequence[Packet]) -> bool:
    """Whether packets are damaged or out of order, so that key frames are no place to enter."""
    dts = [p.dts for p in packets if p.dts is not None]
    return any(p.is_corrupt for p in packets) or any(a > b for a, b in pairwise(dts))


def _refuse_huge(path: Path, stream: Any) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise VideoError(
            f"{path} has frames of {width}×{height}, more than {MAX_PIXELS} pixels; scale it down"
        )


def last_not_after(pts: Any, of: Ticks) -> Any:
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
        if end_s >= enough_s or (end_s := _end_of_all_s(path, container)) >= enough_s:
            return
        promised, there = f"{length_s:.3f} s", f"{end_s:.3f} s"
    raise VideoError(
        f"{path} ({stream.codec_context.name}) is cut off: its header promises {promised}, "
        f"{there} are there; copy or download it again"
    )


def _demuxed(path: Path, container: Any, *streams: Any) -> Iterator[Any]:
    """The packets of some streams, or of all; PyAV has no place for a stream that turns up late."""
    try:
        yield from container.demux(*streams)
    except IndexError as error:
        raise VideoError(
            f"{path} is damaged: a stream turns up in it that its header does not name"
        ) from error


def _end_of_all_s(path: Path, container: Any) -> float:
    """When the last packet of any stream ends: sound may rightly go on behind the picture."""
    container.seek(container.start_time or 0)
    packets = (p for p in _demuxed(path, container) if p.pts is not None)
    return max(float((p.pts + (p.duration or 0)) * p.time_base) for p in packets)


@contextmanager
def opened(
    path: Path, threads: int = 1, options: Mapping[str, str] | None = None
) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream; every failure of FFmpeg becomes a VideoError.

    `options` are those of the decoder.
    """
    if not path.is_file():
        raise VideoError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise VideoError(f"{path} is empty (0 bytes)")
    try:
        with av.open(
            f"file:{path}",
            metadata_errors="replace",
            container_options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"},
        ) as container:
            if not container.streams.video:
                raise VideoError(f"{path} has no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise VideoError(f"{path} is of a codec that FFmpeg does not know; convert it")
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS), **(options or {})}
            stream.codec_context.thread_count = threads
            stream.thread_type = "NONE" if threads == 1 else "AUTO"
            yield container, stream
    except (av.FFmpegError, EOFError) as error:
        raise VideoError(f"{path} cannot be decoded: {error}") from error
