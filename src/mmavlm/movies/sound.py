"""What a film sounds like: voices, steps, and an alarm that no picture shows.

Two questions keep apart what a model hears and what it sees: which alarm rings, which only the
sound tells, and where the film plays, which only the pictures tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmavlm.movies.script import Character, Movie, Speak

Samples = NDArray[np.float64]

RATE_HZ = 16_000
TASK = "sound"  # the folder of its questions
ALARMS = ("bell", "beeps", "horn", "siren")
HEARD = ("heard", "which alarm rings in the movie?")
SEEN = ("seen", "where does the movie take place?")

LONGEST_ALARM_S = 3.0
STEP_S = 0.45  # from one step to the next
STEP_LASTS_S = 0.05
SYLLABLES_HZ = 4.0
PITCH_HZ = {"man": 110.0, "woman": 205.0}
# How loud; the sum stays below 1, so that nothing is cut off.
VOICE, STEP, ALARM = 0.12, 0.15, 0.35

_STREAM = 7  # apart from the random numbers of pictures, which a sound must not change


def alarm_of(seed: int, number: int) -> str:
    """Which alarm rings in film `number` of a set: each once in four films, at random."""
    block, place = divmod(number, len(ALARMS))
    return ALARMS[int(np.random.default_rng([seed, _STREAM, block]).permutation(4)[place])]


def sound_rows(movie: Movie, alarm: str, video: str) -> Iterator[dict[str, Any]]:
    """The two questions about a film, as rows of `data=own_videos`."""
    for (task, question), answer in ((HEARD, alarm), (SEEN, movie.labels["scene"])):
        yield {
            "id": f"{movie.movie_id}/{task}",
            "video": video,
            "prompt": question,
            "answer": answer,
            "task": task,
        }


def soundtrack(movie: Movie, alarm: str) -> NDArray[np.int16]:
    """The sound of a film, int16 (n,) at `RATE_HZ`, as long as the film.

    Who speaks has a pitch of their own, who walks is heard to step, and the alarm rings once. All
    that the script leaves open follows from its seed.
    """
    rng = np.random.default_rng([movie.seed, _STREAM])
    mixed = np.zeros(round(movie.duration_s * RATE_HZ))
    for number, character in enumerate(movie.characters):
        pitch_hz = PITCH_HZ[character.gender] * (1.0 + 0.12 * number + 0.05 * rng.random())
        for words in movie.words:
            if words.subject == character.name:
                _add(mixed, words.start_s, VOICE * _voice(words, pitch_hz))
        for start_s in _steps_s(movie, character):
            _add(mixed, start_s, STEP * _step(rng))
    length_s = min(LONGEST_ALARM_S, movie.duration_s / 2)
    start_s = float(rng.uniform(0.0, movie.duration_s - length_s))
    _add(mixed, start_s, ALARM * alarm_sound(alarm, length_s))
    return np.round(32767 * np.clip(mixed, -1.0, 1.0)).astype(np.int16)


def _add(mixed: Samples, start_s: float, sound: Samples) -> None:
    """Lay a sound into the mix, without the part that would lie behind the end."""
    start = round(start_s * RATE_HZ)
    stop = min(start + len(sound), len(mixed))
    mixed[start:stop] += sound[: stop - start]


def times_s(length_s: float) -> Samples:
    """The second of each sample of a stretch, float64 (n,)."""
    return np.arange(round(length_s * RATE_HZ)) / RATE_HZ


def tones(t_s: Samples, hz: float, partials: dict[float, float]) -> Samples:
    """Sines at multiples of `hz` by their strengths, which are brought to a sum of 1."""
    sines = [level * np.sin(2 * np.pi * hz * part * t_s) for part, level in partials.items()]
    return np.sum(sines, axis=0) / sum(partials.values())


def _voice(words: Speak, pitch_hz: float) -> Samples:
    """Harmonics that swell with each syllable; a sharp voice is brighter."""
    t_s = times_s(words.end_s - words.start_s)
    fall = 1.0 if words.tone == "calm" else 0.4
    harmonics = {float(k): 1.0 / k**fall for k in range(1, 9)}
    return np.abs(np.sin(np.pi * SYLLABLES_HZ * t_s)) * tones(t_s, pitch_hz, harmonics)


def _steps_s(movie: Movie, character: Character) -> Iterator[float]:
    for walk in movie.walks:
        if walk.subject == character.name:
            yield from np.arange(walk.start_s, walk.end_s, STEP_S).tolist()


def _step(rng: np.random.Generator) -> Samples:
    t_s = times_s(STEP_LASTS_S)
    return rng.uniform(-1.0, 1.0, len(t_s)) * np.exp(-t_s / 0.01)


def alarm_sound(alarm: str, length_s: float) -> Samples:
    """One of the `ALARMS`, float64 (n,) at `RATE_HZ`, between −1 and 1."""
    t_s = times_s(length_s)
    if alarm == "bell":
        return np.exp(-(t_s % 0.4) / 0.15) * tones(t_s, 880.0, {1.0: 1.0, 2.76: 0.6, 5.4: 0.3})
    if alarm == "beeps":
        return (t_s % 0.25 < 0.125) * tones(t_s, 1500.0, {1.0: 1.0})
    if alarm == "horn":
        return tones(t_s, 311.0, {float(k): 1.0 / k for k in range(1, 8)})
    # a siren goes up and down once a second, between 500 and 1100 Hz
    phase = 800.0 * t_s - 300.0 * np.cos(2 * np.pi * t_s) / (2 * np.pi)
    return np.sin(2 * np.pi * phase)
