"""Frames → H.264 in mp4, equal bytes for equal frames, and files that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from mmavlm.core.errors import VideoError

CODEC = "libx264"
SOUND_CODEC = "flac"  # without loss, and in whole numbers: the same bytes on every machine
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


@dataclass(frozen=True)
class Sound:
    """One channel of sound: int16 (n,) at `rate_hz`."""

    samples: NDArray[np.int16]
    rate_hz: int


def write_video(
    frames: Iterable[NDArray[np.uint8]],
    path: Path,
    fps: int,
    sound: Sound | None = None,
    settings: Mapping[str, str] = X264,
) -> None:
    """Encode frames, uint8 (H,W,3) with even H and W, at `fps`, with `sound` if any.

    `settings` are the encoder's.

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
        stream = cast(VideoStream, file.add_stream(CODEC, rate=fps, options=dict(settings)))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 2 * fps
        heard = None if sound is None else _Track(file, sound)
        for number, picture in enumerate(chain((first,), pictures), start=1):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if heard is not None:
                heard.write_until(number / fps)
        file.mux(stream.encode())
        if heard is not None:
            heard.close()


class _Track:
    """A track of sound, written beside the pictures, so that players need not look far for it."""

    def __init__(self, file: av.container.OutputContainer, sound: Sound) -> None:
        self.file, self.sound, self.at = file, sound, 0
        rate = sound.rate_hz
        self.stream = cast(AudioStream, file.add_stream(SOUND_CODEC, rate=rate, layout="mono"))
        self.stream.format = "s16"

    def write_until(self, end_s: float) -> None:
        """Encode what is heard up to `end_s`, in full frames of the codec."""
        size = self.stream.frame_size or self.sound.rate_hz
        while self.at + size <= min(end_s * self.sound.rate_hz, len(self.sound.samples)):
            self._write(size)

    def close(self) -> None:
        """Encode the rest."""
        self.write_until(np.inf)
        if self.at < len(self.sound.samples):
            self._write(len(self.sound.samples) - self.at)
        self.file.mux(self.stream.encode())

    def _write(self, count: int) -> None:
        part = self.sound.samples[self.at : self.at + count]
        frame = av.AudioFrame.from_ndarray(part[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = self.sound.rate_hz, self.at
        frame.time_base = Fraction(1, self.sound.rate_hz)
        self.file.mux(self.stream.encode(frame))
        self.at += count
