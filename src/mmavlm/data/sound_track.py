"""The track of a sound: what a file says of it, and its samples by number, mixed to mono."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from mmavlm.core.errors import VideoError
from mmavlm.data.containers import CONTAINERS, demuxed, films, opened_container, reason
from mmavlm.data.probe import HEADER_SLACK_S, SHARE_THAT_MUST_COME

Samples = NDArray[np.float32]

# Films and files of sound; playlists, which FFmpeg also takes for either, open other files.
FORMATS = f"{CONTAINERS},wav,w64,aiff,au,caf,flac,mp3,aac,ac3,eac3,wv,tta,amr"
# They have no length in their header, and FFmpeg guesses one from the first packets.
GUESSED_LENGTHS = ("mp3", "aac", "ac3", "eac3", "amr", "mpegts", "mpeg", "ogg")
# In these, samples follow each other by definition, so that a leap in their times is damage.
WITHOUT_GAPS = ("flac", "wav", "w64", "aiff", "au", "caf", "wv", "tta")

HIGHEST_RATE_HZ = 768_000  # a header that says more is hostile, and a clip would take gigabytes
UNKNOWN_SIZE = 0xFFFFFFFF  # of a WAV that was written to a pipe
# Codecs need some packets before the first that they give correctly: MP3 8 of 26 ms, Opus 80 ms.
PREROLL_S = 0.3
# Containers round times, some to 1 ms; samples come one behind the other unless times leap.
LEAP_S = 0.02
FILTER_S = 0.05  # more than what FFmpeg's resampler sees around a sample


@dataclass(frozen=True)
class SoundTrack:
    """What a file says of its sound; times are the container's own, in seconds.

    `zero_s` is where seconds count from: the first frame of the film, or else the first sample.
    """

    source_hz: int
    zero_s: float
    start_s: float
    end_s: float


@contextmanager
def opened_sound(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and the stream that a player sounds, or None where there is none."""
    with opened_container(path, FORMATS) as container:
        _refuse_cut_off_wave(path, container)
        stream = container.streams.best("audio")
        if stream is None and container.streams.audio:
            raise VideoError(f"{path} has sound of a codec that FFmpeg does not know; convert it")
        if stream is not None:
            stream.codec_context.thread_count = 1
            stream.thread_type = "NONE"
        yield container, stream


def _refuse_cut_off_wave(path: Path, container: Any) -> None:
    """Refuse a WAV shorter than its header says, which FFmpeg takes for a shorter sound."""
    if container.format.name != "wav":
        return
    with path.open("rb") as file:
        kind, said = struct.unpack("<4sI", file.read(8))
    there = path.stat().st_size - 8
    if kind == b"RIFF" and there < SHARE_THAT_MUST_COME * said and said != UNKNOWN_SIZE:
        raise VideoError(
            f"{path} (wav) is cut off: its header promises {said} bytes, {there} are there; copy "
            "or download it again"
        )


def probe_sound(path: Path, container: Any, stream: Any) -> SoundTrack | None:
    """Rate and start as the first frame has them; the end as the last packet has it."""
    first = next((f for p in demuxed(path, container, stream) for f in p.decode()), None)
    promised_s = _promised_s(container, stream)
    if first is None and promised_s:
        raise VideoError(
            f"{path} promises {promised_s:.3f} s of sound, but none is in it; copy or download it "
            "again"
        )
    if first is None:
        return None
    if not 0 < first.sample_rate <= HIGHEST_RATE_HZ:
        raise VideoError(
            f"{path} has {first.sample_rate} samples a second; expected 1 to {HIGHEST_RATE_HZ}"
        )
    start_s = 0.0 if first.pts is None else float(first.pts * first.time_base)
    film = next(iter(films(container)), None)
    zero_s = start_s
    if film is not None and film.start_time is not None:
        zero_s = float(film.start_time * film.time_base)
    end_s = _end_s(path, stream.index, promised_s)
    length_s = end_s - start_s
    enough_s = min(SHARE_THAT_MUST_COME * promised_s, promised_s - HEADER_SLACK_S)
    if container.format.name not in GUESSED_LENGTHS and length_s < enough_s:
        raise VideoError(
            f"{path} ({stream.codec_context.name}) is cut off: its header promises "
            f"{promised_s:.3f} s of sound, {length_s:.3f} s are there; copy or download it again"
        )
    return SoundTrack(first.sample_rate, zero_s, start_s, end_s)


def _promised_s(container: Any, stream: Any) -> float:
    """How long the header says that the sound is; 0 where it does not say."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    alone = len(container.streams) == 1 and container.duration is not None
    return container.duration / av.time_base if alone else 0.0


def _end_s(path: Path, index: int, promised_s: float) -> float:
    """When the last packet ends, in the container's time: read off the end, or of all packets."""
    for seek_s in (max(promised_s - LEAP_S, 0.0), None):
        with opened_container(path, FORMATS) as container:
            stream = container.streams[index]
            tick_s, end = float(stream.time_base), None
            try:
                if seek_s is not None:
                    at = (stream.start_time or 0) + math.floor(seek_s / tick_s)
                    container.seek(at, stream=stream)
                for packet in demuxed(path, container, stream):
                    if packet.size and packet.pts is not None:
                        end = max(end or packet.pts, packet.pts + (packet.duration or 0))
            except av.FFmpegError:  # some containers can be read from their start alone
                if seek_s is None:
                    raise
            if end is not None:
                return end * tick_s
    raise VideoError(f"{path} gives its sound no times; convert it (ffmpeg -i FILE sound.wav)")


class SampleReader:
    """Samples by their number, counted at the source's rate from `zero_s` on."""

    def __init__(self, path: Path, container: Any, stream: Any, track: SoundTrack) -> None:
        self.path = path
        self.container = container
        self.stream = stream
        self.track = track

    def resampled(self, first: int, count: int, rate_hz: int) -> Samples:
        """`count` samples at `rate_hz` from number `first` of that rate on.

        What is resampled begins at a time that is a whole number of samples at either rate, so
        that a sample does not depend on the clip in which it is asked for.
        """
        source_hz = self.track.source_hz
        if rate_hz == source_hz:
            return self.block(first, first + count)
        step = source_hz // math.gcd(source_hz, rate_hz)
        margin = math.ceil(FILTER_S * source_hz)
        begin = (first * source_hz // rate_hz - margin) // step * step
        stop = -(-(first + count) * source_hz // rate_hz) + margin
        frame = av.AudioFrame.from_ndarray(self.block(begin, stop)[None], "fltp", "mono")
        frame.sample_rate = source_hz
        resampler = av.AudioResampler("fltp", "mono", rate_hz)
        parts = [p.to_ndarray()[0] for f in (frame, None) for p in resampler.resample(f)]
        behind = first - begin * rate_hz // source_hz
        return np.concatenate(parts)[behind : behind + count]

    def block(self, begin: int, stop: int) -> Samples:
        """The source's samples from `begin` to before `stop`; silence where there are none."""
        found = np.zeros(stop - begin, np.float32)
        for at, samples in self._samples_from(begin):
            if at >= stop:
                break
            kept = samples[max(begin - at, 0) : stop - at]
            place = max(at - begin, 0)
            found[place : place + len(kept)] = kept
            if at + len(samples) >= stop:
                break
        return found

    def _samples_from(self, begin: int) -> Iterator[tuple[int, Samples]]:
        """Mono samples with the number of their first, from a little before `begin` on."""
        rate = self.track.source_hz
        begin_s = self.track.zero_s + begin / rate
        expected: int | None = None
        for packet, frames in self._decoded_from(begin_s):
            for frame in frames:
                if frame.sample_rate != rate:
                    raise VideoError(
                        f"{self.path} changes from {rate} to {frame.sample_rate} samples a second "
                        f"at {packet.pts} ticks; convert it (ffmpeg -i FILE sound.wav)"
                    )
                at = expected
                if frame.pts is not None:
                    told = round((float(frame.pts * frame.time_base) - self.track.zero_s) * rate)
                    if at is None or abs(told - at) > LEAP_S * rate:
                        self._check_leap(at, told)
                        at = told
                if at is not None:
                    yield at, _mono(self.path, frame)
                    expected = at + frame.samples

    def _check_leap(self, at: int | None, told: int) -> None:
        if at is not None and self.container.format.name in WITHOUT_GAPS:
            ended_s, next_s = (n / self.track.source_hz for n in (at, told))
            raise VideoError(
                f"the sound of {self.path} is damaged: behind {ended_s:.3f} s comes {next_s:.3f} "
                "s; copy or download it again"
            )

    def _decoded_from(self, begin_s: float) -> Iterator[tuple[Any, list[Any]]]:
        """Packets and what they decode to; damage that ends before `begin_s` does not matter."""
        tick_s = float(self.stream.time_base)
        for packet in self._packets_from(begin_s - PREROLL_S):
            if packet.pts is not None and packet.pts * tick_s < begin_s - PREROLL_S:
                continue
            try:
                yield packet, packet.decode()
            except av.FFmpegError as error:
                ends = None if packet.pts is None else packet.pts + (packet.duration or 0)
                if ends is None or ends * tick_s > begin_s:
                    at = "" if packet.pts is None else f" at {packet.pts * tick_s:.3f} s"
                    raise VideoError(
                        f"the sound of {self.path} ({self.stream.codec_context.name}) cannot be "
                        f"decoded{at}: {reason(error)}"
                    ) from error

    def _packets_from(self, wanted_s: float) -> Iterator[Any]:
        """Packets from the one that plays at `wanted_s` on, or from an earlier one."""
        tick_s = float(self.stream.time_base)
        if wanted_s > self.track.start_s:
            try:
                self.container.seek(math.floor(wanted_s / tick_s), stream=self.stream)
            except av.FFmpegError:  # some containers can be read from their start alone
                pass
            else:
                packets = demuxed(self.path, self.container, self.stream)
                first = next(packets, None)
                if first is not None and first.pts is not None and first.pts * tick_s <= wanted_s:
                    yield first
                    yield from packets
                    return
        with opened_container(self.path, FORMATS) as container:
            yield from demuxed(self.path, container, container.streams[self.stream.index])


def _mono(path: Path, frame: Any) -> Samples:
    """A frame's samples (n,), from −1 to 1, as the mean over its channels."""
    try:
        samples = frame.to_ndarray()
    except ValueError as error:
        raise VideoError(f"{path} has samples of an unusual kind ({error}); convert it") from error
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "u":
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples / np.float32(-float(np.iinfo(samples.dtype).min))
    return samples.mean(axis=0, dtype=np.float32)
