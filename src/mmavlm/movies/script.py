"""The script of a synthetic film: who is where, doing what, with which things, and when.

Nothing here knows how a film is drawn. Lengths are in view widths (x = 0 is the left edge of the
widest view, 1 its right edge), times in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from mmavlm.core.errors import DataError
from mmavlm.movies.labels import (
    DIRECTOR,
    GENRE,
    RELATIONSHIP,
    SCENE,
    WAY_SPEAKING,
    WRITER,
    YEAR,
    Camera,
    Deed,
    Distance,
    Look,
    Mood,
    Place,
    Talk,
)

TOGETHER_BELOW = 0.36  # closer than this, two characters count as together


@dataclass(frozen=True, kw_only=True)
class Character:
    """One person, who looks the same through the whole film; `height` is in view heights."""

    name: str
    gender: Literal["man", "woman"]
    clothes: str
    hat: str | None
    hair: str
    skin: int
    height: float


@dataclass(frozen=True, kw_only=True)
class Prop:
    """A thing in the room: the token that is taken or put, furniture of the place, or decor."""

    name: str
    role: Literal["token", "furniture", "decor"]
    x: float
    colour: str | None = None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The place, whether its set is mirrored, and the things in it."""

    place: Place
    mirrored: bool
    props: tuple[Prop, ...]


@dataclass(frozen=True, kw_only=True)
class Walk:
    """`subject` goes from `x_from` to `x_to` at even speed."""

    kind: ClassVar[str] = "walk"
    start_s: float
    end_s: float
    subject: str
    x_from: float
    x_to: float


@dataclass(frozen=True, kw_only=True)
class Speak:
    """`subject` speaks, calmly or sharply, with or without a raised arm."""

    kind: ClassVar[str] = "speak"
    start_s: float
    end_s: float
    subject: str
    tone: Literal["calm", "sharp"]
    gesture: Literal["none", "point", "fist"]


@dataclass(frozen=True, kw_only=True)
class Take:
    """`subject` takes the token `object` from the shelf and hides it."""

    kind: ClassVar[str] = "take"
    start_s: float
    end_s: float
    subject: str
    object: str


@dataclass(frozen=True, kw_only=True)
class Put:
    """`subject` brings the token `object` out and puts it on the shelf."""

    kind: ClassVar[str] = "put"
    start_s: float
    end_s: float
    subject: str
    object: str


Event = Walk | Speak | Take | Put
_EVENTS: Mapping[str, type[Walk] | type[Speak] | type[Take] | type[Put]] = {
    kind.kind: kind for kind in (Walk, Speak, Take, Put)
}


@dataclass(frozen=True)
class CharacterState:
    """One character at one moment; `speaking` is the event of the words being said, if any."""

    x: float
    walking: bool
    speaking: Speak | None


@dataclass(frozen=True)
class WorldState:
    """The world at `t_s`: characters by name, and the token's way from hand (0) to shelf (1)."""

    t_s: float
    characters: Mapping[str, CharacterState]
    token_on_shelf: float


@dataclass(frozen=True, kw_only=True)
class Movie:
    """A film as a list of events over a fixed cast and set; `seed` rules noise and particles only.

    `characters` are (left, right); they never change sides. `start_x` is where they stand at 0 s.
    """

    movie_id: str
    duration_s: float
    seed: int
    scene: Scene
    mood: Mood
    look: Look
    camera: Camera
    talk: Talk
    characters: tuple[Character, Character]
    start_x: tuple[float, float]
    events: tuple[Event, ...]

    @cached_property
    def token(self) -> Prop:
        """The thing that is taken from the shelf or put on it."""
        return next(prop for prop in self.scene.props if prop.role == "token")

    @property
    def deeds(self) -> tuple[Deed, ...]:
        """What is done with the token, in order."""
        return tuple("take" if isinstance(e, Take) else "put" for e in self.token_events)

    @cached_property
    def token_events(self) -> tuple[Take | Put, ...]:
        """Every taking and putting, in order of time."""
        return tuple(event for event in self.events if isinstance(event, Take | Put))

    @cached_property
    def walks(self) -> tuple[Walk, ...]:
        """Every walk, in order of time."""
        return tuple(event for event in self.events if isinstance(event, Walk))

    @cached_property
    def words(self) -> tuple[Speak, ...]:
        """Every stretch of speech, in order of time."""
        return tuple(event for event in self.events if isinstance(event, Speak))

    @property
    def course(self) -> tuple[Distance, ...]:
        """How near the two characters are, phase after phase."""
        turns = sorted({walk.end_s for walk in self.walks})
        phases: list[Distance] = []
        for t_s in (0.0, *turns):
            left, right = (self._x(c.name, t_s) for c in self.characters)
            phases.append("together" if right - left < TOGETHER_BELOW else "apart")
        return tuple(phases)

    @property
    def labels(self) -> dict[str, str]:
        """The class of every task, read off the script."""
        causes: dict[str, tuple[Mapping[str, Any], Any]] = {
            "director": (DIRECTOR, self.camera),
            "genre": (GENRE, self.mood),
            "relationship": (RELATIONSHIP, self.course),
            "scene": (SCENE, self.scene.place),
            "way_speaking": (WAY_SPEAKING, self.talk),
            "writer": (WRITER, self.deeds),
            "year": (YEAR, self.look),
        }
        return {
            task: next(label for label, shown in classes.items() if shown == cause)
            for task, (classes, cause) in causes.items()
        }

    def at(self, t_s: float) -> WorldState:
        """The world at `t_s` seconds."""
        walking = {walk.subject for walk in self.walks if _covers(walk, t_s)}
        speech = {words.subject: words for words in self.words if _covers(words, t_s)}
        return WorldState(
            t_s,
            {
                c.name: CharacterState(self._x(c.name, t_s), c.name in walking, speech.get(c.name))
                for c in self.characters
            },
            self._token_on_shelf(t_s),
        )

    def _x(self, name: str, t_s: float) -> float:
        x = next(x for c, x in zip(self.characters, self.start_x, strict=True) if c.name == name)
        for walk in self.walks:
            if walk.subject == name and walk.start_s <= t_s:
                x = walk.x_from + (walk.x_to - walk.x_from) * _progress(walk, t_s)
        return x

    def _token_on_shelf(self, t_s: float) -> float:
        share = 1.0 if isinstance(self.token_events[0], Take) else 0.0
        for event in self.token_events:
            if event.start_s <= t_s:
                done = _progress(event, t_s)
                share = 1.0 - done if isinstance(event, Take) else done
        return share

    def to_dict(self) -> dict[str, Any]:
        """The script as plain JSON values, the labels beside it."""
        row = asdict(self)
        row["events"] = [{"kind": event.kind, **asdict(event)} for event in self.events]
        return {**row, "labels": self.labels}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Movie:
        """The film that `to_dict` wrote.

        Raises:
            DataError: if the row lacks a key, has an unknown one, or an unknown kind of event.
        """
        try:
            fields = {key: value for key, value in row.items() if key != "labels"}
            scene = dict(fields["scene"])
            scene["props"] = tuple(Prop(**prop) for prop in scene["props"])
            fields["scene"] = Scene(**scene)
            fields["characters"] = tuple(Character(**c) for c in fields["characters"])
            fields["start_x"] = tuple(fields["start_x"])
            fields["events"] = tuple(_event(event) for event in fields["events"])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise DataError(
                f"script of movie {row.get('movie_id', '?')}: {error}; expected the keys that "
                "Movie.to_dict writes; make the movie set anew"
            ) from error


def _event(row: Mapping[str, Any]) -> Event:
    return _EVENTS[row["kind"]](**{key: value for key, value in row.items() if key != "kind"})


def _covers(event: Event, t_s: float) -> bool:
    return event.start_s <= t_s < event.end_s


def _progress(event: Event, t_s: float) -> float:
    return min(1.0, (t_s - event.start_s) / (event.end_s - event.start_s))
