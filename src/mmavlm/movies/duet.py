"""A set of films in which things happen at known times, to be told when they happen.

A film stays in one place with its people, but for cuts of a second and a half: a close-up of a
thing, or another place. A question asks for a colour or a place, at the start or later, and is to
be answered when a cut shows it. Every frame shows by itself whether it is what was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmavlm.core.errors import ConfigError
from mmavlm.core.files import write_whole
from mmavlm.movies.encode import write_video
from mmavlm.movies.frames import Actor, FrameSpec, Picture
from mmavlm.movies.generators import ProceduralImages
from mmavlm.movies.generators.grammar import TONES, draw_people
from mmavlm.movies.sprites import draw_token
from mmavlm.movies.vocabulary import Action, Location, Style, ThingColour, ThingName
from mmavlm.movies.write import split_sizes

Kind = Literal["colour", "place"]
KINDS: tuple[Kind, ...] = get_args(Kind)
COLOURS: tuple[ThingColour, ...] = get_args(ThingColour)
NAMES: tuple[ThingName, ...] = get_args(ThingName)
PLACES: tuple[Location, ...] = ("garden", "hospital", "theatre", "station", "kitchen", "workshop")
STYLES = ("daylight", "fairground", "postcard")  # whose light leaves colours apart
POSES: tuple[Action, ...] = ("stand", "talk", "point")
BACKDROP = (226, 222, 214)
CLOSE_UP = 0.82  # of the picture's side
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
Progress = Callable[[int, int], None]


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


def make_duet_set(
    root: str | Path, settings: DuetSettings, *, progress: Progress | None = None
) -> Path:
    """Make the set below `root`, or what is missing of it, and return `root`.

    Films lie in `videos/`. `questions/` are read by `data=duet_movies`, `searches/` by
    `data=grounding`, and `captions/`, which tell all events of a film, by `data=dense_captions`;
    each has a file for every split. `set.json` says what the set is made of.

    Raises:
        ConfigError: if `root` holds a set of other settings.
    """
    root, films = Path(root), plan_duet(settings)
    told = json.dumps({"kind": "duet", **asdict(settings)}, indent=1) + "\n"
    _require_same(root / "set.json", told)
    images = ProceduralImages(settings.size)
    for done, film in enumerate(films, start=1):
        path = root / "videos" / f"{film.name}.mp4"
        if not path.is_file():
            write_video(draw_duet(film, settings, images), path, settings.fps)
        if progress is not None:
            progress(done, len(films))
    for split in split_sizes(settings.films):
        own = [film for film in films if film.split == split]
        asked = [(film, number) for film in own for number in range(QUESTIONS)]
        _write(
            root / "questions" / f"{split}.json",
            [_question_row(*pair, settings.fps) for pair in asked],
        )
        _write(
            root / "searches" / f"{split}.json",
            [_search_row(*pair, settings.fps) for pair in asked],
        )
        captions = {f"{f.name}.mp4": {"0": [*_captions(f, settings.fps)]} for f in own}
        _write(root / "captions" / f"{split}.json", captions)
    return root


def draw_duet(
    film: DuetFilm, settings: DuetSettings, images: ProceduralImages
) -> Iterator[Picture]:
    """The pictures of a film in order, uint8 (size, size, 3)."""
    rng = np.random.default_rng([*film.seed, 1])
    keyword = STYLES[int(rng.integers(len(STYLES)))]
    stock = images.prepare_style(
        Style.model_validate({"keyword": keyword, "tone": TONES[keyword]}), int(rng.integers(2**31))
    )
    people = draw_people(rng)[:2]
    frames = round(settings.duration_s * settings.fps)
    poses = rng.integers(len(POSES), size=(frames, 2))
    for number in range(frames):
        t_s = number / settings.fps
        event = film.event_at(t_s)
        if event is not None and event.kind == "colour":
            yield stock.era.develop(_close_up(event, settings.size), t_s)
            continue
        acts = poses[int(t_s)]  # people move once a second
        actors = tuple(
            Actor(
                person=p, action=POSES[int(a)], expression="neutral", speaks=POSES[int(a)] == "talk"
            )
            for p, a in zip(people, acts, strict=True)
        )
        place: Any = film.place if event is None else event.value
        (picture,) = images.render([FrameSpec(location=place, actors=actors)], stock, [0])
        yield picture


def _close_up(event: Event, size: int) -> NDArray[np.uint8]:
    """A thing that fills the picture."""
    canvas = Image.new("RGB", (size, size), BACKDROP)
    assert event.thing is not None  # of events of a colour
    sprite = draw_token(event.thing, event.value, round(CLOSE_UP * size))
    corner = (size - sprite.width) // 2
    canvas.paste(sprite, (corner, corner), sprite)
    return np.asarray(canvas)


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


def _question_row(film: DuetFilm, number: int, fps: int) -> dict[str, Any]:
    asked = film.questions[number]
    answers = [
        {"role": "assistant", **_times(event, fps), "content": event.told(before)}
        for before, event in enumerate(asked.events)
    ]
    question = {"role": "user", "time": asked.time_s, "content": asked.text}
    return {
        "question_id": f"{film.name}/{number}",
        "video_uid": f"{film.name}.mp4",
        "video_start_time": 0.0,
        "conversation": [question, *answers],
    }


def _search_row(film: DuetFilm, number: int, fps: int) -> dict[str, Any]:
    """A search for all that a question asks for, up to the last frame of each cut."""
    asked = film.questions[number]
    seen = [event for event in film.events if event.sort == (asked.kind, asked.value)]
    return {
        "question_id": f"{film.name}/{number}",
        "video_uid": f"{film.name}.mp4",
        "query": SOUGHT[asked.kind].format(asked.value),
        "timestamps": [_times(event, fps)["timespan"] for event in seen],
    }


def _captions(film: DuetFilm, fps: int) -> Iterator[dict[str, Any]]:
    sorts = [event.sort for event in film.events]
    for number, event in enumerate(film.events):
        yield {**_times(event, fps), "text": event.told(sorts[:number].count(event.sort))}


def _times(event: Event, fps: int) -> dict[str, Any]:
    """When an event is told, and the times of its first frame and its last."""
    last_s = round(event.stop_s - 1 / fps, 6)
    return {"time": event.start_s + SAID_S, "timespan": [event.start_s, last_s]}


def _write(path: Path, rows: Any) -> None:
    write_whole(path, (json.dumps(rows, indent=1) + "\n").encode())


def _require_same(path: Path, told: str) -> None:
    """Refuse to make a set where there is one of other settings."""
    if path.is_file() and path.read_text(encoding="utf-8") != told:
        raise ConfigError(
            f"{path.parent} holds another set; give another folder, or the settings of {path}"
        )
    write_whole(path, told.encode())
