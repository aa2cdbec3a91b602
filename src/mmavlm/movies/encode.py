"""Frames → H.264 in mp4, equal bytes for equal frames, and files that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from mmavlm.core.errors import VideoError

CODEC = "libx264"
# One thread: slices and look-ahead of several threads would make the bytes depend on the machine.
X264 = {"preset": "ultrafast", "crf": "25", "threads": "1"}


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved onto it when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_video(frames: Iterable[NDArray[np.uint8]], path: Path, fps: int) -> None:
    """Encode frames, uint8 (H,W,3) with even H and W, at `fps`.

    Raises:
        VideoError: if PyAV has no H.264 encoder, or there are no frames.
    """
    if CODEC not in av.codecs_available:
        raise VideoError(
            f"{path}: PyAV {av.__version__} has no {CODEC} encoder; install PyAV's own wheel: "
            "pip install --force-reinstall av"
        )
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise VideoError(f"{path}: there are no frames to encode; give at least one")
    with whole_file(path) as part, av.open(str(part), "w", options={"fflags": "+bitexact"}) as file:
        stream = cast(VideoStream, file.add_stream(CODEC, rate=fps, options=X264))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 2 * fps
        for picture in chain((first,), pictures):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
