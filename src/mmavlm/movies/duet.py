"""A set of films in which things happen at known times, to be told when they happen.

A film stays in one place with its people, but for cuts of a second and a half: a close-up of a
thing, or another place. A question asks for a colour or a place, at the start or later, and is to
be answered when a cut shows it. Every frame shows by itself whether it is what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from mmavlm.core.errors import ConfigError
from mmavlm.movies.vocabulary import Action, Location, ThingColour, ThingName
from mmavlm.movies.write import split_sizes

Kind = Literal["colour", "place"]
KINDS: tuple[Kind, ...] = get_args(Kind)
COLOURS: tuple[ThingColour, ...] = get_args(ThingColour)
NAMES: tuple[ThingName, ...] = get_args(ThingName)
PLACES: tuple[Location, ...] = ("garden", "hospital", "theatre", "station", "kitchen", "workshop")
STYLES = ("daylight", "fairground", "postcard")  # whose light leaves colours apart
POSES: tuple[Action, ...] = ("stand", "talk", "point")
SHOWN_S, APART_S = 1.5, 3.0  # how long a cut is, and from the start of one to that of the next
SAID_S = 1.0  # from the start of a cut to when it is told
FIRST_S, LAST_S = 1.0, 0.5  # of the film, in which nothing happens
QUESTIONS = 2  # about each film
SHORTEST_S = FIRST_S + 2 * APART_S + SHOWN_S + LAST_S

ASKED: Mapping[Kind, tuple[str, ...]] = {
    "colour": (
        "Tell me when there is a close-up of something {}.",
        "Say so when you see a {} thing in close-up.",
    ),
    "place": ("Tell me when we are in the {}.", "Say so when you see the {}."),
}
SOUGHT: Mapping[Kind, str] = {"colour": "a close-up of a {} thing", "place": "the {}"}

Rng = np.random.Generator


@dataclass(frozen=True)
class DuetSettings:
    """All that a set depends on; `events` are the kinds of what happens.

    Raises:
        ConfigError: if a value is outside what can be made.
    """

    films: int = 400
    seed: int = 0
    duration_s: float = 12.0
    fps: int = 4
    size: int = 96
    events: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        least = {"films": 3, "seed": 0, "duration_s": SHORTEST_S, "fps": 2, "size": 32}
        for key, smallest in least.items():
            if getattr(self, key) < smallest:
                raise ConfigError(
                    f"duet set: {key}={getattr(self, key)} cannot be made; give at least "
                    f"{smallest:g}"
                )
        if not self.events or not {*self.events} <= {*KINDS}:
            known = ", ".join(KINDS)
            raise ConfigError(
                f"duet set: events={','.join(self.events)}; give one or more of {known}"
            )


@dataclass(frozen=True)
class Event:
    """A cut that begins at `start_s`: to what (`value`) of a kind, and the thing that shows it."""

    start_s: float
    kind: Kind
    value: str
    thing: str | None = None

    @property
    def stop_s(self) -> float:
        """When the cut ends."""
        return self.start_s + SHOWN_S

    @property
    def sort(self) -> tuple[Kind, str]:
        """What a question asks for."""
        return self.kind, self.value

    def told(self, before: int) -> str:
        """What is to be said of it, if so many of its sort were told before."""
        again = ("", " again", " once more")[before]
        if self.kind == "colour":
            return f"There is a {self.value} {self.thing}{again}."
        return f"We are in the {self.value}{again}."


@dataclass(frozen=True)
class Question:
    """What is asked at `time_s` of a film, and the events that are to be told from then on."""

    time_s: float
    kind: Kind
    value: str
    text: str
    events: tuple[Event, ...]


@dataclass(frozen=True)
class DuetFilm:
    """A film: its split and name, where it plays, what happens in it, and what is asked."""

    split: str
    name: str
    place: Location
    events: tuple[Event, ...]
    questions: tuple[Question, ...]
    seed: tuple[int, int]

    def event_at(self, t_s: float) -> Event | None:
        """The event that is seen at a second of the film."""
        return next((e for e in self.events if e.start_s <= t_s < e.stop_s), None)


def plan_duet(settings: DuetSettings) -> list[DuetFilm]:
    """The films of all splits, each by draws of its own."""
    splits = [split for split, n in split_sizes(settings.films).items() for _ in range(n)]
    return [_film(split, number, settings) for number, split in enumerate(splits)]


def _film(split: str, number: int, settings: DuetSettings) -> DuetFilm:
    seed = (settings.seed, number)
    rng = np.random.default_rng(seed)
    place = PLACES[int(rng.integers(len(PLACES)))]
    events = tuple(_events(place, settings, rng))
    questions = tuple(_questions(place, events, settings, rng))
    return DuetFilm(split, f"duet_{number:05d}", place, events, questions, seed)


def _events(place: Location, settings: DuetSettings, rng: Rng) -> Iterator[Event]:
    """One to three cuts, apart from each other; a later one may be like the first."""
    count = int(rng.integers(1, 4))
    ticks = [round(s * settings.fps) for s in (FIRST_S, settings.duration_s - SHOWN_S - LAST_S)]
    slack = ticks[1] - ticks[0] - (count - 1) * round(APART_S * settings.fps)
    starts = np.sort(rng.integers(slack + 1, size=count)) + ticks[0]
    first: tuple[Kind, str] | None = None
    for number, start in enumerate(starts.tolist()):
        start_s = start / settings.fps + number * APART_S
        drawn = _sort(place, settings, rng)
        kind, value = first if first is not None and rng.random() < 0.4 else drawn
        first = first or (kind, value)
        thing = NAMES[int(rng.integers(len(NAMES)))] if kind == "colour" else None
        yield Event(start_s, kind, value, thing)


def _sort(place: Location, settings: DuetSettings, rng: Rng) -> tuple[Kind, str]:
    """A kind of event, and a colour or a place other than where the film plays."""
    kinds = [kind for kind in KINDS if kind in settings.events]
    kind = kinds[int(rng.integers(len(kinds)))]
    values: Sequence[str] = COLOURS if kind == "colour" else [p for p in PLACES if p != place]
    return kind, values[int(rng.integers(len(values)))]


def _questions(
    place: Location, events: tuple[Event, ...], settings: DuetSettings, rng: Rng
) -> Iterator[Question]:
    """One about the first event's sort, and one about another, which may be there or not."""
    other = first = events[0].sort
    while other == first:
        other = _sort(place, settings, rng)
    others = [event.sort for event in events if event.sort != first]
    if others and rng.random() < 0.5:
        other = others[int(rng.integers(len(others)))]
    for kind, value in (first, other):
        time_s = 0.0
        if rng.random() < 0.5:  # in mid-film, and not while something is seen
            free = [
                t / settings.fps
                for t in range(1, round((settings.duration_s - APART_S) * settings.fps))
                if not any(e.start_s - 0.5 < t / settings.fps < e.stop_s + 0.5 for e in events)
            ]
            time_s = free[int(rng.integers(len(free)))] if free else 0.0
        sentences = ASKED[kind]
        text = sentences[int(rng.integers(len(sentences)))].format(value)
        true = (e for e in events if e.sort == (kind, value) and e.start_s > time_s)
        yield Question(time_s, kind, value, text, tuple(true))
