"""What a video file holds, read off its packets without decoding where these tell all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from mmavlm.core.errors import VideoError
from mmavlm.data import containers
from mmavlm.data.containers import demuxed, opened
from mmavlm.data.timeline import CLOCKS_MAY_LEAP, LEAP_S, Ticks, decoded_timeline

# A header may promise a few frames more than there are (dropped duplicates).
SHARE_THAT_MUST_COME = 0.98
HEADER_SLACK_S = 1.0
MISCOUNTING = ("avi", "ivf")  # what they count are slots, or ticks

# MPEG-4 packs two pictures into one packet, and puts one of at most so many bytes behind it.
PLACEHOLDER_BYTES = 19


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """What a file holds, read off its packets; all times in ticks (pts), ascending.

    `frame_pts` are the frames that are shown. `hidden_pts` are those that an edit list hides, and
    which are decoded because others refer to them; `keyframe_pts` may be of either. `width` and
    `height` are the coded ones, before any rotation. `in_order` says that times are those of frames
    counted as they decode, so that they hold only for a file decoded from its start.
    """

    path: Path
    codec: str
    width: int
    height: int
    tick_s: float
    duration_s: float
    frame_pts: Ticks
    hidden_pts: Ticks
    keyframe_pts: Ticks
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
    """Read the packets of a video file; headers are not trusted for times.

    Where packets do not tell which frames are shown when, all are decoded once.

    Raises:
        VideoError: naming path and reason, if there is no video in it or it is cut off.
    """
    with opened(path) as (container, stream):
        context = stream.codec_context
        _refuse_huge(path, stream)
        packets = [_kept(p, context.name) for p in demuxed(path, container, stream) if p.size]
        _refuse_cut_off(path, container, stream, packets)
        if not any(p.is_keyframe for p in packets):
            raise VideoError(
                f"{path} ({context.name}) holds {len(packets)} frames, none of them a key frame; "
                f"{containers.REMEDY}"
            )
        header = {
            "path": path, "codec": context.name, "width": context.width, "height": context.height,
            "tick_s": float(stream.time_base),
        }  # fmt: skip
        clear = _tell_all(packets, stream, leaps=container.format.name in CLOCKS_MAY_LEAP)
    return (_by_packets if clear else _by_decoding)(header, packets)


class Packet(NamedTuple):
    """What probing keeps of a packet; its content would be the whole file."""

    pts: Any
    dts: int | None
    duration: int
    size: int
    is_keyframe: bool
    is_hidden: bool
    is_corrupt: bool
    is_invisible: bool


def _kept(packet: Any, codec: str) -> Packet:
    # RFC 6386, 9.1: a frame of VP8 may be there for others to refer to alone
    invisible = codec == "vp8" and not memoryview(packet)[0] & 0x10
    return Packet(
        packet.pts, packet.dts, packet.duration or 0, packet.size, packet.is_keyframe,
        packet.is_discard, packet.is_corrupt, invisible,
    )  # fmt: skip


def _tell_all(packets: Sequence[Packet], stream: Any, *, leaps: bool) -> bool:
    """Whether each packet is one frame, shown when it says, and packets come as they decode.

    They do not where a time is missing or given twice, where clocks start again, or where packets
    are numbered as they come although frames are reordered; and some of MPEG-4 and VP8 show none.
    """
    pts = [p.pts for p in packets]
    if None in pts or len(set(pts)) < len(pts) or any(p.is_invisible for p in packets):
        return False
    steps = _dts_steps(packets)
    if steps.min(initial=0) < 0 or (
        leaps and steps.max(initial=0) * float(stream.time_base) > LEAP_S
    ):
        return False
    reordered = bool(stream.codec_context.has_b_frames)
    if stream.codec_context.name == "mpeg4":
        return not reordered and min(p.size for p in packets) > PLACEHOLDER_BYTES
    return not reordered or len(pts) == 1 or bool((np.diff(np.array(pts)) < 0).any())


def _dts_steps(packets: Sequence[Packet]) -> Ticks:
    dts: Ticks = np.array([p.dts for p in packets if p.dts is not None], np.int64)
    return dts[1:] - dts[:-1]


def _by_packets(header: Mapping[str, Any], packets: Sequence[Packet]) -> VideoInfo:
    keyframes = np.array(sorted(p.pts for p in packets if p.is_keyframe), np.int64)
    # what precedes the first key frame refers to frames the file does not have
    there = [p for p in packets if p.pts >= keyframes[0]]
    shown = [p for p in there if not p.is_hidden]
    if not shown:
        raise VideoError(
            f"{header['path']} shows none of its {len(packets)} frames; mend its edit list"
        )
    frames, hidden = (
        np.array(sorted(p.pts for p in some), np.int64)
        for some in (shown, [p for p in there if p.is_hidden])
    )
    end = max(p.pts + p.duration for p in shown)
    damaged = any(p.is_corrupt for p in packets)
    return VideoInfo(
        **header,
        duration_s=float((end - frames[0]) * header["tick_s"]),
        frame_pts=frames,
        hidden_pts=hidden,
        # what a damaged frame leaves behind may reach over key frames
        keyframe_pts=keyframes[:1] if damaged else keyframes[keyframes <= frames[-1]],
    )


def _by_decoding(header: Mapping[str, Any], packets: Sequence[Packet]) -> VideoInfo:
    timeline = decoded_timeline(header["path"])
    frames = timeline.pts
    keyframes = {p.pts for p in packets if p.is_keyframe}
    clean = _dts_steps(packets).min(initial=0) >= 0 and not any(
        p.is_hidden or p.is_corrupt for p in packets
    )
    may_enter = clean and timeline.as_told and keyframes <= set(frames.tolist())
    return VideoInfo(
        **header,
        duration_s=float((frames[-1] + timeline.step - frames[0]) * header["tick_s"]),
        frame_pts=frames,
        hidden_pts=frames[:0],
        keyframe_pts=np.array(sorted(keyframes), np.int64) if may_enter else frames[:1],
        in_order=not may_enter,
    )


def _refuse_huge(path: Path, stream: Any) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > containers.MAX_PIXELS:
        raise VideoError(
            f"{path} has frames of {width}×{height}, more than {containers.MAX_PIXELS} pixels; "
            "scale it down"
        )


def last_not_after(pts: Any, of: Ticks) -> Any:
    """The greatest of `of` not after each of `pts`, or the first one."""
    return of[np.maximum(np.searchsorted(of, pts, side="right") - 1, 0)]


def _refuse_cut_off(path: Path, container: Any, stream: Any, packets: Sequence[Packet]) -> None:
    """Refuse a file with fewer frames than it says, and not as long as it says either."""
    container_name = container.format.name
    counted = container_name not in MISCOUNTING and stream.frames
    if counted and len(packets) >= SHARE_THAT_MUST_COME * stream.frames:
        return
    shown = [p for p in packets if p.pts is not None and not p.is_hidden]
    tick_s = float(stream.time_base)
    end_s = max((p.pts + p.duration for p in shown), default=0) * tick_s
    end_s -= min(container.start_time or 0, 0) / av.time_base
    if counted:  # an edit list leaves out whole groups of pictures
        length_s = stream.duration * tick_s if stream.duration else np.inf
        slack_s = HEADER_SLACK_S if len(shown) < len(packets) else 0.0
        enough_s = min(SHARE_THAT_MUST_COME * length_s, length_s - slack_s)
    else:
        slots = container_name == "avi"  # AVI counts slots for frames, some of them empty
        length_s = stream.frames * tick_s if slots else (container.duration or 0) / av.time_base
        enough_s = min(SHARE_THAT_MUST_COME * length_s, length_s - HEADER_SLACK_S)
        if end_s < enough_s:
            end_s = _end_of_all_s(path, container)
    if end_s >= enough_s:
        return
    if counted and len(shown) == len(packets):
        promised, there = f"{stream.frames} frames", f"{len(packets)}"
    else:
        promised, there = f"{length_s:.3f} s", f"{end_s:.3f} s"
    raise VideoError(
        f"{path} ({stream.codec_context.name}) is cut off: its header promises {promised}, "
        f"{there} are there; copy or download it again"
    )


def _end_of_all_s(path: Path, container: Any) -> float:
    """When the last packet of any stream ends: sound may rightly go on behind the picture."""
    start = container.start_time or 0
    container.seek(start)
    packets = (p for p in demuxed(path, container) if p.pts is not None)
    end_s = max((float((p.pts + (p.duration or 0)) * p.time_base) for p in packets), default=0.0)
    return end_s - min(start, 0) / av.time_base
