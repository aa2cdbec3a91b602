"""What the kinds of planted bias share: settings, questions about pairs, and a set on disk.

Whatever a kind plants, its films are planned as those of co-occurrence (`movies.bias`): of each
pair one thing is true of half of the films, and the other comes with it in `bias` of the films in
training, in half of them in the test. So tasks, scores and arms are the same for all kinds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmavlm.core.errors import ConfigError
from mmavlm.core.files import write_whole
from mmavlm.movies.bias import (
    BiasedFilm,
    BiasSettings,
    Pairs,
    name_of,
    plan_films,
    remove_twins,
    statistics,
)
from mmavlm.movies.claim import SET, claim, made
from mmavlm.movies.frames import Actor
from mmavlm.movies.generators.grammar import draw_people
from mmavlm.movies.scenery import draw_style, posed
from mmavlm.movies.stories.reel import write_rows
from mmavlm.movies.vocabulary import LOCATIONS, Person, Style

Rng = np.random.Generator
Row = dict[str, Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PlantedSettings:
    """What a set depends on; `bias` is how often the habit holds in training (in the test: 0.5).

    Raises:
        ConfigError: if a value is outside what can be made.
    """

    films: int = 400
    seed: int = 0
    bias: float = 0.9
    frames: int = 2
    fps: int = 2

    def __post_init__(self) -> None:
        for key in ("frames", "fps"):
            if getattr(self, key) < 1:
                raise ConfigError(f"bias set: {key}={getattr(self, key)} is below 1")
        self.plan(())

    def plan(self, pairs: Pairs) -> list[BiasedFilm]:
        """Which film has which of the pairs."""
        return plan_films(BiasSettings(self.films, self.seed, self.bias), pairs)


@dataclass(frozen=True)
class Kind:
    """A kind of planted bias: pairs, the question about each of them, and a film in words."""

    pairs: Pairs
    questions: Mapping[str, str]
    caption: Callable[[BiasedFilm], str]
    more: Mapping[str, Callable[[BiasedFilm, str], Iterable[Row]]]  # folder → further rows of films


def write_set(
    root: Path,
    kind: Kind,
    films: Sequence[BiasedFilm],
    draw: Callable[[BiasedFilm], Path],
    progress: Progress | None,
) -> list[Row]:
    """Draw the films, write the tables, and return the `statistics` of the pairs.

    `{train,val,test}.jsonl` are the yes/no questions (`data=own_videos`), `captions/` what films
    show (`data=captions`), and the folders of `kind.more` whatever else is asked.

    Raises:
        ConfigError: if `root` holds tables of no made set.
    """
    claim(root)
    remove_twins(root)  # none are made of this kind
    videos = {}
    for film in films:
        videos[film.number] = draw(film).relative_to(root).as_posix()
        if progress is not None:
            progress(len(videos), len(films))
    for split in dict.fromkeys(film.split for film in films):
        own = [(film, videos[film.number]) for film in films if film.split == split]
        asked = [row for film, video in own for row in question_rows(kind, film, video)]
        write_rows(root / f"{split}.jsonl", asked)
        told = [
            {"id": name_of(film), "video": video, "caption": kind.caption(film)}
            for film, video in own
        ]
        write_rows(root / "captions" / f"{split}.jsonl", told)
        for folder, rows_of in kind.more.items():
            rows = [row for film, video in own for row in rows_of(film, video)]
            write_rows(root / folder / f"{split}.jsonl", rows)
    return statistics(films, kind.pairs)


def write_facts(root: Path, settings: PlantedSettings, image: str, pairs: list[Row]) -> Row:
    """Write `set.json`, what the set was made of and the shares of its pairs, and return it."""
    found = {"settings": asdict(settings), "image": image, "pairs": pairs}
    write_whole(root / SET, (json.dumps(found, indent=1) + "\n").encode())
    made(root)
    return found


def question_rows(kind: Kind, film: BiasedFilm, video: str) -> Iterator[Row]:
    """A question about each of all pairs; the tasks say what is likely where it is asked."""
    for anchor, companion in kind.pairs:
        for name, partner in ((anchor, companion), (companion, anchor)):
            there = name in film.objects
            likely = "likely" if partner in film.objects else "unlikely"
            yield {
                "id": f"{name_of(film)}_{anchor}-{name}",
                "video": video,
                "prompt": kind.questions[name],
                "answer": "yes" if there else "no",
                "task": f"{'present' if there else 'absent'}_{likely}",
            }


@dataclass(frozen=True)
class Stage:
    """What a film shows beside what is planted: style, place and two people."""

    style: Style
    place: str
    people: tuple[Person, ...]

    @classmethod
    def of(cls, rng: Rng) -> Stage:
        """A style, a place and two people, drawn at random."""
        style = draw_style(rng)
        return cls(style, LOCATIONS[int(rng.integers(len(LOCATIONS)))], draw_people(rng)[:2])

    def actors(self, rng: Rng) -> tuple[Actor, ...]:
        """The people of a frame, one of whom may sit or point."""
        return posed(self.people, rng)
