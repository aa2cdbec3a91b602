"""A movie set with planted bias between the senses: what is seen is usually heard, and the reverse.

Each pair is a thing and its noise. In training and validation the noise is heard in `bias` of the
films that show the thing and in 1 − `bias` of the others; in the test, in half of either. So things
and noises are each in half of the films of every split, and a model that tells what it hears from
what it sees is wrong where a cat is seen and nothing meows. (The two questions of AVHBench, arXiv
2410.18325: is what is seen also heard, is what is heard also seen.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmavlm.movies.bias import BiasedFilm
from mmavlm.movies.encode import Sound
from mmavlm.movies.frames import FrameSpec, ImageGenerator
from mmavlm.movies.noises import NOISES, noise_track
from mmavlm.movies.planted import (
    Kind,
    PlantedSettings,
    Progress,
    Row,
    Stage,
    write_facts,
    write_set,
)
from mmavlm.movies.scenery import listed
from mmavlm.movies.sound import RATE_HZ
from mmavlm.movies.stories.reel import draw_film
from mmavlm.movies.vocabulary import Style

PAIRS = (("clock", "bell"), ("cat", "meow"), ("lamp", "buzz"), ("bin", "clatter"))
SEEN = "Is there a {} in the video?"
HEARD = "Is a {} heard in the video?"


@dataclass(frozen=True)
class SoundSettings(PlantedSettings):
    """What a set depends on; a film of `frames` frames at `fps` is heard for frames/fps seconds.

    Raises:
        ConfigError: if a value is outside what can be made.
    """

    fps: int = 1


def make_sound_set(
    root: str | Path,
    settings: SoundSettings,
    images: ImageGenerator,
    *,
    progress: Progress | None = None,
) -> Row:
    """Make the set below `root`, or what is missing of it, and return its statistics.

    `{train,val,test}.jsonl` ask for each thing whether it is there and for each noise whether it is
    heard; `data=heard_videos` gives a model both, `data=own_videos` the pictures alone.

    Raises:
        ConfigError: if the settings cannot be made.
    """
    root = Path(root)

    def draw(film: BiasedFilm) -> Path:
        style, frames = scenes(film, settings)
        sound = Sound(track(film, settings), RATE_HZ)
        return draw_film(root / "films", frames, style, images, settings.fps, sound=sound)

    pairs = write_set(root, _kind(), settings.plan(PAIRS), draw, progress)
    return write_facts(root, settings, images.fingerprint, pairs)


def scenes(film: BiasedFilm, settings: SoundSettings) -> tuple[Style, list[FrameSpec]]:
    """The film's style and frames: two people and the things that are seen, in one place."""
    rng = np.random.default_rng([settings.seed, 7, film.number])
    stage = Stage.of(rng)
    seen = tuple(sorted(film.objects - NOISES.keys()))
    frames = [
        # what a place always has would be another object
        FrameSpec(location=stage.place, actors=stage.actors(rng), decor=seen, furnished=False)
        for _ in range(settings.frames)
    ]
    return stage.style, frames


def track(film: BiasedFilm, settings: SoundSettings) -> NDArray[np.int16]:
    """What the film sounds like, int16 (n,) at `RATE_HZ`; pictures play no part in it."""
    rng = np.random.default_rng([settings.seed, 13, film.number])
    return noise_track(film.objects & NOISES.keys(), settings.frames / settings.fps, rng)


def _kind() -> Kind:
    questions = {thing: SEEN.format(thing) for thing, _ in PAIRS}
    questions |= {noise: HEARD.format(noise) for _, noise in PAIRS}
    return Kind(PAIRS, questions, _caption, {})


def _caption(film: BiasedFilm) -> str:
    seen, heard = film.objects - NOISES.keys(), film.objects & NOISES.keys()
    told = f"A man and a woman are in {f'a room with {listed(seen)}' if seen else 'an empty room'}"
    if not heard:
        return f"{told}."
    return f"{told}, and {listed(heard)} {'are' if len(heard) > 1 else 'is'} heard."
