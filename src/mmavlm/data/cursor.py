"""The way through a file to the frames that are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from mmavlm.data.probe import VideoInfo, last_not_after
from mmavlm.errors import VideoError

Decoded = tuple[int, Any]  # display time (pts) and frame

# Some codecs pack placeholders and second fields into packets that give no frame of their own.
PACKETS_WITHOUT_FRAME = 3


class Cursor:
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
        keyframe = int(last_not_after(pts, self.info.keyframe_pts))
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
