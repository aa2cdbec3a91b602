"""The noises of visible things: each lasts through a film, in a pitch of its own each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from mmavlm.movies.sound import RATE_HZ, Samples, alarm_sound, times_s, tones

Rng = np.random.Generator

LOUDEST = 0.22  # of one noise: four of them at once are not cut off
PITCH_SPREAD = 0.08  # either way, from film to film
HISS = 0.004  # under everything, so that no film is without sound


def noise_track(
    heard: Iterable[str], length_s: float, rng: np.random.Generator
) -> NDArray[np.int16]:
    """The sound of a film in which the `NOISES` named are heard: int16 (n,) at `RATE_HZ`."""
    mixed = HISS * rng.standard_normal(round(length_s * RATE_HZ))
    for name in sorted(heard):
        loud = LOUDEST * rng.uniform(0.6, 1.0)
        mixed += loud * NOISES[name](length_s, rng.uniform(1 - PITCH_SPREAD, 1 + PITCH_SPREAD))
    return np.round(32767 * np.clip(mixed, -1.0, 1.0)).astype(np.int16)


def _bell(length_s: float, pitch: float) -> Samples:
    wanted = round(length_s * RATE_HZ)
    rung = alarm_sound("bell", length_s * max(pitch, 1.0) + 0.1)
    return np.interp(np.arange(wanted) * pitch, np.arange(len(rung)), rung)


def _meow(length_s: float, pitch: float) -> Samples:
    """A voice that rises and falls twice a second."""
    t_s = times_s(length_s)
    swing = 0.5 - 0.5 * np.cos(2 * np.pi * 2.0 * t_s)
    turns = np.cumsum(pitch * (320.0 + 260.0 * swing)) / RATE_HZ
    harmonics = ((1, 1.0), (2, 0.7), (3, 0.4))
    voice = np.sum([level * np.sin(2 * np.pi * k * turns) for k, level in harmonics], axis=0)
    return np.asarray(swing * voice / 2.1)


def _buzz(length_s: float, pitch: float) -> Samples:
    return tones(times_s(length_s), 100.0 * pitch, {float(k): 1.0 / k for k in range(1, 9)})


def _clatter(length_s: float, pitch: float) -> Samples:
    """Strokes of bright tones that belong to no common pitch."""
    t_s = times_s(length_s)
    strokes = np.exp(-(t_s % 0.2) / 0.04)
    return strokes * tones(t_s, 2600.0 * pitch, {1.0: 1.0, 1.31: 0.9, 1.73: 0.8, 2.19: 0.7})


NOISES: Mapping[str, Callable[[float, float], Samples]] = {
    "bell": _bell,
    "meow": _meow,
    "buzz": _buzz,
    "clatter": _clatter,
}
