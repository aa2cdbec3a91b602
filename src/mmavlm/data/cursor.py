"""The way through a file to the frames that are wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, suppress
from typing import Any, NoReturn

import av
import numpy as np

from mmavlm.core.errors import VideoError
from mmavlm.data.containers import REMEDY, reason
from mmavlm.data.probe import VideoInfo, last_not_after

Decoded = tuple[int, Any]  # display time (pts) and frame

# In these a picture that no other refers to says so, and may be left out.
TELLS_WHAT_IS_REFERRED_TO = ("h264",)

# Some codecs pack placeholders and second fields into packets that give no frame of their own.
PACKETS_WITHOUT_FRAME = 3

# A damaged picture comes after those that refer to it and are shown before it; so many are held
# back, as many as encoders reorder.
REORDERED = 4

# Between frames, in the usual distance: with more of it, some may have been lost.
GAP = 1.5


class DamageFoundError(Exception):
    """A sign of damage: what a decoder makes of it depends on all it decoded before."""


class BrokenOffError(VideoError):
    """A file that cannot be decoded any further."""


def undamaged(
    frames: Iterable[Any], stream: Any, *, ascending: bool = True
) -> Generator[Any, None, None]:
    """The frames, each when those it may refer to have come too, and none of them is damaged.

    Where times are not `ascending`, one that steps back is no sign of damage.

    Raises:
        DamageFoundError: if one is.
    """
    held: deque[Any] = deque()
    context = stream.codec_context
    # a decoder of HEVC may go on writing into a damaged frame that it has given, so none is held
    most = REORDERED if context.name == "h264" and context.has_b_frames else 0
    for frame in frames:
        if frame.is_corrupt or (ascending and held and _shown_before(frame, held[-1])):
            raise DamageFoundError
        held.append(frame)
        if len(held) > most:
            yield held.popleft()
    yield from held


def _shown_before(frame: Any, other: Any) -> bool:
    return frame.pts is not None and other.pts is not None and frame.pts < other.pts


class Cursor:
    """A decoder that moves forward through a file to the `wanted` frames, given by their packets.

    It seeks only over whole groups of pictures, and leaves out what it can while that is exact. At
    the first sign of damage it raises `DamageFoundError`; with `whole` it neither seeks nor leaves
    anything out, and takes what the decoder gives.
    """

    def __init__(
        self,
        container: Any,
        stream: Any,
        info: VideoInfo,
        wanted: Sequence[int],
        *,
        whole: bool = False,
    ) -> None:
        self.container = container
        self.stream = stream
        self.info = info
        self.whole = whole
        thrifty = info.codec in TELLS_WHAT_IS_REFERRED_TO and not (info.in_order or whole)
        self.shortcut = Shortcut(container, stream, info, wanted) if thrifty else None
        self.shown: Decoded | None = None  # the latest one not after what was asked for
        self.coming: Decoded | None = None  # the one behind it, if it had to be decoded already
        self.frames = self._decoded()

    def move_to(self, pts: int) -> Decoded:
        """The frame shown at `pts`, the time of a packet not before the one asked for last."""
        enter = self.info.keyframe_pts[: 1 if self.whole else None]
        keyframe = int(last_not_after(pts, enter))
        if self.shortcut is not None:
            if (frame := self.shortcut.frame_at(pts, keyframe)) is not None:
                return pts, frame
            self.shortcut = None
            self._seek(keyframe)
        decoded = self.coming or self.shown
        if keyframe > (self.info.keyframe_pts[0] if decoded is None else decoded[0]):
            self._seek(keyframe)
        while self.shown is None or self.shown[0] < pts:
            self.coming = self.coming or next(self.frames, None)
            if self.coming is None or self.coming[0] > pts:
                break
            self.shown, self.coming = self.coming, None
        if self.shown is None or self._hidden(self.shown[0], pts) > self._may_hide():
            self._break_off(f"no frame decodes for {self._second(pts)} s")
        return self.shown

    def see_the_rest(self) -> None:
        """Look whether the rest of a damaged file changes what was shown.

        Raises:
            VideoError: if it does.
        """
        with suppress(BrokenOffError):
            for _ in self.frames:
                pass

    def close(self) -> None:
        """Let go of all frames now; generators refer back here and would wait for the collector."""
        self.frames.close()
        if self.shortcut is not None:
            self.shortcut.frames.close()
        self.shown = self.coming = None

    def _hidden(self, shown: int, pts: int) -> int:
        """How many packets after the frame at `shown`, up to `pts`, gave no frame."""
        first, last = np.searchsorted(self.info.frame_pts, (shown, pts))
        return int(last - first)

    def _may_hide(self) -> int:
        return 0 if self.coming is None else PACKETS_WITHOUT_FRAME

    def _decoded(self) -> Generator[Decoded, None, None]:
        """Frames from here on with their display times."""
        last = len(self.info.frame_pts) - 1
        latest = self.info.start_pts
        try:
            with closing(self.container.decode(self.stream)) as decoded:
                in_order = self.info.in_order
                clean = undamaged(decoded, self.stream, ascending=not in_order)
                for index, frame in enumerate(decoded if self.whole else clean):
                    if in_order:
                        yield int(self.info.frame_pts[min(index, last)]), frame
                    elif frame.pts is not None and frame.pts >= self.info.start_pts:
                        if frame.pts < latest and self.whole:
                            raise VideoError(
                                f"{self.info.path} ({self.info.codec}) is damaged: the frame of "
                                f"{self._second(frame.pts)} s comes after that of "
                                f"{self._second(latest)} s; copy or download it again, or {REMEDY}"
                            )
                        latest = frame.pts
                        yield frame.pts, frame
        except (av.FFmpegError, EOFError) as error:
            self._break_off(reason(error))

    def _seek(self, keyframe: int) -> None:
        self.stream.codec_context.skip_frame = "DEFAULT"
        try:
            self.container.seek(keyframe, stream=self.stream)
        except av.FFmpegError as error:  # some containers can be read from their start alone
            raise DamageFoundError from error
        self.frames = self._decoded()
        self.shown, self.coming = None, next(self.frames, None)
        if self.coming is not None and not self._may_enter_at(*self.coming):
            raise DamageFoundError
        first_shown = self.info.frame_pts[np.searchsorted(self.info.frame_pts, keyframe)]
        if self.coming is None or self.coming[0] > first_shown:
            # Some containers have no exact index; then all frames from the first are decoded.
            self.container.seek(int(self.info.keyframe_pts[0]), stream=self.stream)
            self.frames = self._decoded()
            self.coming = None

    def _may_enter_at(self, pts: int, frame: Any) -> bool:
        """Whether a frame is where decoding may begin; AVI may count other times after a seek.

        Behind a hidden key frame the first that is shown may be of any kind.
        """
        hides = len(self.info.hidden_pts) > 0
        return bool(frame.key_frame or hides) and pts in self.info.frame_pts

    def _second(self, pts: int) -> str:
        return f"{self.info.seconds(pts):.3f}"

    def _break_off(self, why: str) -> NoReturn:
        if not self.whole:
            raise DamageFoundError
        reached = "at its start" if self.shown is None else f"after {self._second(self.shown[0])} s"
        raise BrokenOffError(
            f"{self.info.path} ({self.info.codec}) breaks off {reached} of "
            f"{self.info.duration_s:.3f} s: {why}"
        )


class Shortcut:
    """Decodes of a group of pictures what the wanted ones refer to, and no more.

    Pictures that no other refers to are left out unless they are wanted. Behind the last wanted one
    the decoder is emptied; fed on, it would hold that one back for as many as it may reorder.
    """

    def __init__(self, container: Any, stream: Any, info: VideoInfo, wanted: Sequence[int]) -> None:
        self.container = container
        self.stream = stream
        self.decoded_pts = np.union1d(info.frame_pts, info.hidden_pts)
        self.usual = float(np.median(np.diff(self.decoded_pts))) if len(self.decoded_pts) > 1 else 0
        self.at = int(info.keyframe_pts[0])  # that of the group whose frames are coming
        groups = last_not_after(np.asarray(wanted), info.keyframe_pts).tolist()
        self.wanted: dict[int, set[int]] = {keyframe: set() for keyframe in groups}
        for pts, keyframe in zip(wanted, groups, strict=True):
            self.wanted[keyframe].add(pts)
        self.frames = undamaged(self._decoded(self.at), stream)

    def frame_at(self, pts: int, keyframe: int) -> Any | None:
        """The frame at the time of its packet, or None where only decoding all will tell."""
        try:
            if keyframe != self.at:
                self.container.seek(keyframe, stream=self.stream)
                self.at = keyframe
                self.frames = undamaged(self._decoded(keyframe), self.stream)
            if self._lacks_frames(pts, keyframe):
                return None
            for frame in self.frames:
                if frame.pts is None or frame.pts >= pts:
                    # half a picture may be a packet of its own, and is not to be left out
                    return frame if frame.pts == pts and not frame.interlaced_frame else None
        except (av.FFmpegError, EOFError) as error:
            raise DamageFoundError from error
        return None

    def _lacks_frames(self, pts: int, keyframe: int) -> bool:
        """Whether there may be gaps: what fills them depends on all that was decoded before."""
        first, last = np.searchsorted(self.decoded_pts, (keyframe, pts))
        needed = self.decoded_pts[first : last + 1 + REORDERED]
        return bool((np.diff(needed) > GAP * self.usual).any())

    def _decoded(self, keyframe: int) -> Generator[Any, None, None]:
        """Frames from the key frame to the last wanted one of its group, and some behind it."""
        context = self.stream.codec_context
        wanted = self.wanted[keyframe]
        left, entered = set(wanted), False
        # left to the collector, PyAV's generators leave 150 bytes of every film behind
        with closing(self.container.demux(self.stream)) as packets:
            for packet in packets:
                entered = entered or packet.pts == keyframe
                if not entered:
                    continue
                context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                yield from packet.decode()
                left.discard(packet.pts)
                if not left:
                    yield from context.decode(None)
                    return
