"""The three levels of a story: plot → scenes → shots (MovieLLM: theme, substories, tinystories).

Each level is what a text generator answers with; the checks say what the form alone cannot.
"""

from __future__ import annotations

from pydantic import Field

from mmavlm.movies.vocabulary import (
    Action,
    Expression,
    Location,
    Person,
    Style,
    Thing,
    Words,
)

MIN_LOCATIONS = 12


class Outline(Words):
    """A part of the film: what it is called, and what happens in it."""

    title: str = Field(min_length=1)
    content: str = Field(min_length=1)


class PlacedThing(Words):
    """A thing and where it lies when the film begins."""

    thing: Thing
    location: Location


class Plot(Words):
    """Level 1: theme, style, places, people and things, and an outline of every chapter."""

    title: str = Field(min_length=1)
    overview: str = Field(min_length=1)
    style: Style
    locations: tuple[Location, ...] = Field(min_length=MIN_LOCATIONS)
    people: tuple[Person, ...] = Field(min_length=2, max_length=3)
    things: tuple[PlacedThing, ...] = Field(min_length=1, max_length=6)
    chapters: tuple[Outline, ...]


class SceneOutline(Words):
    """Level 2: one scene, where it plays and who is there."""

    title: str = Field(min_length=1)
    content: str = Field(min_length=1)
    location: Location
    people: tuple[str, ...] = Field(min_length=2, max_length=3)


class Scenes(Words):
    """Level 2 of one chapter."""

    scenes: tuple[SceneOutline, ...]


class Shot(Words):
    """Level 3: one frame. `thing` is colour and name (`red cup`), `to` the other person's name."""

    actor: str
    action: Action
    expression: Expression
    thing: str | None = None
    to: str | None = None
    line: str | None = None


class Shots(Words):
    """Level 3 of one scene."""

    shots: tuple[Shot, ...]


def check_plot(plot: Plot, chapters: int) -> None:
    """Whether a plot has the asked chapters, and people and things that can be told apart.

    Raises:
        ValueError: saying what is wrong.
    """
    _counts("chapters", len(plot.chapters), chapters)
    for what, names in (
        ("names", [person.name for person in plot.people]),
        ("people (by gender and clothes)", [person.phrase for person in plot.people]),
        ("things", [placed.thing.phrase for placed in plot.things]),
        ("locations", list(plot.locations)),
    ):
        if len(set(names)) < len(names):
            raise ValueError(f"{what} must be different from each other, got {names}")
    if outside := {p.location for p in plot.things} - set(plot.locations):
        raise ValueError(f"things lie in {sorted(outside)}, which are not among the locations")


def check_scenes(scenes: Scenes, plot: Plot, count: int) -> None:
    """Whether a chapter has the asked scenes, in places and with people of the plot.

    Raises:
        ValueError: saying what is wrong.
    """
    _counts("scenes", len(scenes.scenes), count)
    names = [person.name for person in plot.people]
    for scene in scenes.scenes:
        if scene.location not in plot.locations:
            raise ValueError(f"{scene.location} is not among {list(plot.locations)}")
        if not set(scene.people) <= set(names) or len(set(scene.people)) < len(scene.people):
            raise ValueError(f"people {list(scene.people)} must be different ones of {names}")


def _counts(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(f"{wanted} {what} are asked for, got {found}")
