"""A movie set with planted bias in time: what comes at the start, and what follows at the end.

Every film shows every object once, in its first or in its second part, so that who ignores time is
at chance (`absent` above 0 leaves some out of the other part, which is easier). Where a pair's
first object opens a film, the second follows at the end in `bias` of the films of training and
validation; where it does not, in 1 − `bias`. In the test it is half of either. So every object is
at the start of half of the films of every split, and what differs is what follows what. (Temporal
hallucination: a model tells the event that usually comes next.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mmavlm.core.errors import ConfigError
from mmavlm.movies.bias import PAIRS, BiasedFilm, name_of
from mmavlm.movies.frames import FrameSpec, ImageGenerator
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
from mmavlm.movies.stories.reel import draw_film
from mmavlm.movies.vocabulary import Style

AT_THE_START = "Is there a {} at the start of the video?"
AT_THE_END = "Is there a {} at the end of the video?"
AFTER = "Does the {} come after the {}?"
FOLDER = "order"  # of the questions about which of two comes after the other


@dataclass(frozen=True)
class OrderSettings(PlantedSettings):
    """What a set depends on; a film has two parts of `frames` frames each.

    Of the objects that are not where they are asked for, `absent` is the share that a film does not
    show at all, in place of showing them in its other part. With 1 it is enough to see what there
    is, and nothing is said of order.

    Raises:
        ConfigError: if a value is outside what can be made.
    """

    frames: int = 1
    absent: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.absent <= 1.0:
            raise ConfigError(f"bias set: absent={self.absent} must lie between 0 and 1")


def make_order_set(
    root: str | Path,
    settings: OrderSettings,
    images: ImageGenerator,
    *,
    progress: Progress | None = None,
) -> Row:
    """Make the set below `root`, or what is missing of it, and return its statistics.

    `{train,val,test}.jsonl` ask what is there at the start and at the end; `order/` which of a
    pair comes after the other, as often one as the other.

    Raises:
        ConfigError: if the settings cannot be made.
    """
    root = Path(root)

    def draw(film: BiasedFilm) -> Path:
        style, frames = scenes(film, settings)
        return draw_film(root / "films", frames, style, images, settings.fps)

    pairs = write_set(root, _kind(settings), settings.plan(PAIRS), draw, progress)
    return write_facts(root, settings, images.fingerprint, pairs)


def parts(film: BiasedFilm, settings: OrderSettings) -> tuple[frozenset[str], frozenset[str]]:
    """The objects of the first part and those of the second; a plan names what is as usual."""
    rng = np.random.default_rng([settings.seed, 17, film.number])
    names = [name for pair in PAIRS for name in pair]
    draws = dict(zip(names, rng.random(len(names)).tolist(), strict=True))
    shown = {n for n in names if n in film.objects or draws[n] >= settings.absent}
    start = {a for a, _ in PAIRS if a in film.objects}
    start |= {b for _, b in PAIRS if b not in film.objects}
    return frozenset(shown & start), frozenset(shown - start)


def scenes(film: BiasedFilm, settings: OrderSettings) -> tuple[Style, list[FrameSpec]]:
    """The film's style and frames: two people in one place, things that change around them."""
    rng = np.random.default_rng([settings.seed, 7, film.number])
    stage = Stage.of(rng)
    frames = [
        FrameSpec(
            location=stage.place,
            actors=stage.actors(rng),
            decor=tuple(sorted(shown)),
            furnished=False,  # what a place always has would be another object
        )
        for shown in parts(film, settings)
        for _ in range(settings.frames)
    ]
    return stage.style, frames


def order_rows(settings: OrderSettings, film: BiasedFilm, video: str) -> Iterator[Row]:
    """Of each pair that is shown one after the other: both questions, one of which is true."""
    start, end = parts(film, settings)
    for first, second in PAIRS:
        if not ({first, second} & start and {first, second} & end):
            continue
        for later, earlier in ((second, first), (first, second)):
            yield {
                "id": f"{name_of(film)}_{first}-{later}",
                "video": video,
                "prompt": AFTER.format(later, earlier),
                "answer": "yes" if earlier in start else "no",
                "task": FOLDER,
            }


def _kind(settings: OrderSettings) -> Kind:
    questions = {a: AT_THE_START.format(a) for a, _ in PAIRS}
    questions |= {b: AT_THE_END.format(b) for _, b in PAIRS}
    caption, rows = partial(_caption, settings), partial(order_rows, settings)
    return Kind(PAIRS, questions, caption, {FOLDER: rows})


def _caption(settings: OrderSettings, film: BiasedFilm) -> str:
    first, then = (f"with {listed(s)}" if s else "empty" for s in parts(film, settings))
    return f"A man and a woman are in a room, first {first}, then {then}."
