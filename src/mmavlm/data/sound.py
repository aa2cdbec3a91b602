"""Sound of a film's own track or of a sound file, in clips, with as little decoding as it takes."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mmavlm.core.errors import ConfigError
from mmavlm.data.sound_track import (
    HIGHEST_RATE_HZ,
    SampleReader,
    SoundTrack,
    opened_sound,
    probe_sound,
)


class ClipSettings(NamedTuple):
    """How sound is heard: so many clips of `clip_s` seconds, at `rate_hz` samples a second."""

    rate_hz: int
    clips: int
    clip_s: float


class Clips(NamedTuple):
    """Clips (S,N) float32, where they start in seconds (S,) float64, and which are real (S,) bool.

    Those that are not real come last, are silent, and start at 0. From the feature cache, clips are
    their tokens float16 (S,P,Da) instead.
    """

    clips: Tensor
    times_s: Tensor
    mask: Tensor


class SoundSource:
    """The sound of a film or of a sound file, at `rate_hz`, as the mean over its channels.

    Seconds count from the film's first frame. Where the track starts later, or has a gap, it is
    silent. A film without a track, and a folder of frames, have no sound.

    Raises:
        ConfigError: if the rate is no rate.
        VideoError: on first use, naming path and reason, if the file cannot be decoded.
    """

    def __init__(self, path: str | Path, rate_hz: int = 16_000) -> None:
        if not 0 < rate_hz <= HIGHEST_RATE_HZ:
            raise ConfigError(f"rate_hz is {rate_hz}; give 1 to {HIGHEST_RATE_HZ} samples a second")
        self.path = Path(path)
        self.rate_hz = rate_hz

    @cached_property
    def track(self) -> SoundTrack | None:
        """What the file says of its sound, or None where there is none."""
        if self.path.is_dir():
            return None
        with opened_sound(self.path) as (container, stream):
            return None if stream is None else probe_sound(self.path, container, stream)

    @property
    def has_sound(self) -> bool:
        """Whether there is a track with any sample in it."""
        return self.track is not None

    @property
    def duration_s(self) -> float:
        """When the sound ends, in seconds; 0 where there is none."""
        return 0.0 if self.track is None else max(self.track.end_s - self.track.zero_s, 0.0)

    def clips(
        self,
        count: int = 8,
        clip_s: float = 2.0,
        start_s: float = 0.0,
        end_s: float | None = None,
    ) -> Clips:
        """`count` clips of `clip_s` seconds, spread evenly over a stretch, its end included.

        Of a stretch of D seconds, clip i starts at start + i·(D − clip_s)/(count − 1), so that the
        last one ends where the stretch ends; a single clip lies in the middle. (Video-LLaMA's code
        divides by `count` and never reaches the end.) A stretch that is no longer than a clip gives
        one clip, with silence behind it. The end is that of the sound where it ends before.

        Raises:
            ConfigError: if there is no clip, or none of a sample or more.
            ValueError: if the stretch starts below 0 or behind its end.
            VideoError: naming path and reason, if the file cannot be decoded.
        """
        samples = round(clip_s * self.rate_hz)
        if count < 1 or samples < 1:
            raise ConfigError(
                f"{count} clips of {clip_s} s at {self.rate_hz} Hz; give 1 clip or more of at "
                "least one sample"
            )
        if start_s < 0 or (end_s is not None and end_s < start_s):
            raise ValueError(f"no stretch goes from {start_s} s to {end_s} s")
        sound_s = self.duration_s
        stop_s = sound_s if end_s is None else min(end_s, sound_s)
        starts = _starts(start_s, stop_s, count, clip_s)
        clips, times_s = torch.zeros(count, samples), torch.zeros(count, dtype=torch.float64)
        if self.track is not None and starts:
            with opened_sound(self.path) as (container, stream):
                reader = SampleReader(self.path, container, stream, self.track)
                for i, at_s in enumerate(starts):
                    kept = min(samples, round((stop_s - at_s) * self.rate_hz))
                    found = reader.resampled(round(at_s * self.rate_hz), kept, self.rate_hz)
                    clips[i, :kept] = torch.from_numpy(found)
                    times_s[i] = at_s
        return Clips(clips, times_s, torch.arange(count) < len(starts))


def _starts(start_s: float, stop_s: float, count: int, clip_s: float) -> list[float]:
    """Where the clips of a stretch start; none where there is no stretch."""
    room_s = stop_s - start_s - clip_s
    if stop_s <= start_s:
        return []
    if room_s <= 0:
        return [start_s]
    if count == 1:
        return [start_s + room_s / 2]
    return [start_s + i * room_s / (count - 1) for i in range(count)]
