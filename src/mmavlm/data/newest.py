"""The newest picture of a camera: a thread decodes all that comes, and keeps no other."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from errno import EIO
from threading import Condition, Thread
from time import monotonic
from typing import Any, NamedTuple

import av
from av.format import Flags

from mmavlm.core.errors import VideoError
from mmavlm.data.containers import MAX_PIXELS, demuxed, films
from mmavlm.data.timeline import LEAP_S
from mmavlm.data.video import SAME_TIME_S, decode_threads

log = logging.getLogger(__name__)

# How long closing waits for the thread, which ends with the next packet.
CLOSING_S = 1.0

# FFmpeg's filters and some devices give pictures and no packets; which are key frames is unknown.
PICTURES_AS_THEY_ARE = "wrapped_avframe"


class Source(NamedTuple):
    """What is opened, and how: FFmpeg's `format` and `options`, and what is `allowed` beyond them.

    `name` is what may be shown of it, `remedy` what to look at if nothing comes for `timeout_s`.
    """

    address: str
    name: str
    format: str | None
    options: dict[str, str]
    allowed: dict[str, str]
    timeout_s: float
    remedy: str

    def opened(self) -> Any:
        """The container; waiting for anything in it ends after `timeout_s`."""
        return av.open(
            self.address,
            format=self.format,
            options=self.options,
            container_options=self.allowed,
            metadata_errors="replace",
            timeout=self.timeout_s,
        )

    def failure(self, error: Exception, *, opened: bool) -> Exception | None:
        """An error without the address, which PyAV shows with its password, and with a remedy.

        None where it is the end: FFmpeg calls it an error if a server, which never said how much
        would come, closes the connection.
        """
        if opened and self.address.lower().startswith("http") and getattr(error, "errno", 0) == EIO:
            return None
        if isinstance(error, VideoError) or not isinstance(
            error, (av.FFmpegError, EOFError, ValueError)
        ):
            return error
        silent = isinstance(error, av.error.ExitError)
        said = f"silent for {self.timeout_s:g} s" if silent else getattr(error, "strerror", None)
        what = "broke off" if opened else "cannot be opened as a camera"
        return VideoError(f"{self.name} {what}: {said or error}; {self.remedy}")


class Taken(NamedTuple):
    """A picture, its time in seconds since the first, and how many came and went before it."""

    time_s: float
    picture: Any  # of PyAV
    missed: int


class Newest:
    """The newest picture of a source, at most one for each step of 1/fps."""

    def __init__(self, source: Source, fps: float) -> None:
        self.source = source
        self.fps = fps
        self.damaged = 0
        self._changed = Condition()
        self._opened = self._ended = self._closing = False
        self._failure: Exception | None = None
        self._newest: tuple[float, Any] | None = None
        self._step = -1  # the newest one with a picture
        self._untaken = 0  # steps with a picture since one was taken
        self._heard_s = monotonic()
        self._thread = Thread(target=self._run, name="camera", daemon=True)

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._closing

    def open(self) -> None:
        """Start, and wait until the source is open.

        Raises:
            VideoError: if it cannot be opened.
        """
        self._thread.start()
        try:
            with self._changed:
                while not (self._opened or self._ended):
                    self._wait()
                if self._failure is not None:
                    raise self._failure
        except BaseException:
            self.close()
            raise

    def take(self) -> Taken | None:
        """The newest picture, once its step has one that was not taken; None at the end.

        Raises:
            VideoError: if the source breaks off, or no picture comes for its `timeout_s`.
        """
        with self._changed:
            while self._newest is None:
                if self._failure is not None:
                    raise self._failure
                if self._ended:
                    return None
                self._wait()
            taken = Taken(*self._newest, self._untaken - 1)
            self._newest, self._untaken = None, 0
            return taken

    def close(self) -> None:
        """Have the thread close the source; one that waits for a silent source does so later."""
        with self._changed:
            self._closing = self._ended = True
            self._newest = None
            self._changed.notify_all()
        self._thread.join(CLOSING_S)
        if self._thread.is_alive():
            log.info(
                "%s is silent; it is closed after %g s", self.source.name, self.source.timeout_s
            )

    def _wait(self) -> None:
        timeout_s = self.source.timeout_s
        left_s = self._heard_s + timeout_s - monotonic()
        if left_s <= 0:
            damaged = f" but {self.damaged} damaged ones" if self.damaged else ""
            raise VideoError(
                f"{self.source.name} gave no picture{damaged} for {timeout_s:g} s; "
                f"{self.source.remedy}, or raise timeout_s"
            )
        self._changed.wait(left_s)

    def _run(self) -> None:
        failure = None
        try:
            with self.source.opened() as container:
                self._read(container)
        except Exception as error:  # of whatever kind, it is for the thread that takes pictures
            failure = self.source.failure(error, opened=self._opened)
        with self._changed:
            self._failure = None if self._closing else failure
            self._ended = True
            self._changed.notify_all()

    def _read(self, container: Any) -> None:
        found = films(container)
        if not found or found[0].codec_context is None:
            raise VideoError(f"{self.source.name} gives no pictures, or of an unknown codec")
        context = found[0].codec_context
        context.options = {"max_pixels": str(MAX_PIXELS)}
        context.thread_count = decode_threads()
        context.thread_type = "SLICE"  # threads by frame would give pictures later
        with self._changed:
            self._opened, self._heard_s = True, monotonic()
            self._changed.notify_all()
        clock = Clock(has_times=not container.format.flags & Flags.no_timestamps.value)
        with closing(self._pictures(container, found[0])) as pictures:
            for picture in pictures:
                self._offer(clock.time_of(picture.time, monotonic()), picture)

    def _pictures(self, container: Any, stream: Any) -> Generator[Any, None, None]:
        """The sound pictures, from a key frame on, behind a damaged one from the next."""
        codec = stream.codec_context.codec
        alone = codec.intra_only or codec.name == PICTURES_AS_THEY_ARE
        sound = alone
        with closing(demuxed(self.source.name, container, stream)) as packets:
            for packet in packets:
                if self._closing:
                    return
                for picture in _decoded(packet):
                    whole = picture is not None and not picture.is_corrupt
                    sound = whole and (sound or alone or bool(picture.key_frame))
                    if sound:
                        yield picture
                    else:
                        self.damaged += 1

    def _offer(self, time_s: float, picture: Any) -> None:
        step = int((time_s + SAME_TIME_S) * self.fps)
        with self._changed:
            self._heard_s = monotonic()
            if step > self._step:
                self._step = step
                self._untaken += 1
            if self._untaken and not self._closing:
                self._newest = time_s, picture
                self._changed.notify_all()


def _decoded(packet: Any) -> list[Any]:
    """The pictures of a packet, None for one that is damaged."""
    if packet.is_corrupt:
        return [None]
    try:
        return packet.decode()
    except av.InvalidDataError:
        return [None]


@dataclass
class Clock:
    """When pictures were taken, in seconds since the first, ascending.

    By their own times; by those of arrival where there are none, or where these leap, ahead or
    back; and from then on, if they fall behind.
    """

    has_times: bool
    time_s: float = 0.0
    own_s: float | None = None
    first_s: float | None = None
    arrived_s: float = 0.0

    def time_of(self, own_s: float | None, arrived_s: float) -> float:
        """The time of a picture that says it is of `own_s` and came at `arrived_s`."""
        if self.first_s is None:
            self.first_s = arrived_s
        else:
            waited_s = arrived_s - self.arrived_s
            step_s = -1.0 if own_s is None or self.own_s is None else own_s - self.own_s
            if not self.has_times or not 0 < step_s <= waited_s + LEAP_S:
                step_s = waited_s
            self.time_s += step_s
            if arrived_s - self.first_s > self.time_s + LEAP_S:
                self.has_times, self.time_s = False, arrived_s - self.first_s
        self.own_s, self.arrived_s = own_s, arrived_s
        return self.time_s
