"""The text generator that needs no model and no network: a seeded grammar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_args

import numpy as np

from mmavlm.core.errors import ConfigError
from mmavlm.movies.generators.text import TextRequest, TextResult
from mmavlm.movies.plot import NAMES
from mmavlm.movies.stories.plan import (
    MIN_LOCATIONS,
    Outline,
    PlacedThing,
    Plot,
    SceneOutline,
    Scenes,
    Shot,
    Shots,
)
from mmavlm.movies.stories.world import World
from mmavlm.movies.vocabulary import (
    LOCATIONS,
    STYLES,
    Clothes,
    Expression,
    Gender,
    Hair,
    Hat,
    Location,
    Person,
    Style,
    Thing,
    ThingColour,
    ThingName,
    Words,
)

Rng = np.random.Generator
Item = TypeVar("Item")

TONES: Mapping[str, tuple[str, ...]] = {
    "fairground": ("bright", "cheerful", "full of colour"),
    "postcard": ("warm", "soft", "full of colour"),
    "comic": ("bold", "striped light", "full of colour"),
    "moonlight": ("cold", "dark at the edges", "widescreen"),
    "daylight": ("clear", "friendly", "widescreen"),
    "velvet": ("soft", "rosy", "widescreen"),
}
CHAPTERS = ("a meeting", "a search", "a promise", "a mistake", "a journey", "a secret", "a visit")
TALK: Mapping[Expression, tuple[str, ...]] = {
    "neutral": ("Here we are.", "Let us look around.", "Have you been here before?"),
    "happy": ("What a lovely day!", "I am glad you came.", "That went well!"),
    "sad": ("I miss the old days.", "This is a sad place.", "I had hoped for more."),
    "angry": ("That is not fair!", "You are late again!", "I do not like this!"),
}
STILL = ("stand", "sit", "point")
# How often the grammar prefers what changes the world, and what answers a request.
MOVE_SHARE, ANSWER_SHARE = 0.55, 0.8


class Grammar:
    """Writes plots, scenes and shots by drawing from the vocabulary; the same seed, the same text.

    Everything it writes is admitted by the world: it tries its shots on one.
    """

    fingerprint = "grammar 1"

    def complete(self, request: TextRequest) -> TextResult:
        """The JSON text of a plot, of scenes or of shots.

        Raises:
            ConfigError: if the task is another one.
        """
        writers: dict[str, Callable[[Mapping[str, Any], Rng], Words]] = {
            "plot": _plot,
            "scenes": _scenes,
            "shots": _shots,
        }
        if request.task not in writers:
            raise ConfigError(
                f"the offline grammar writes {', '.join(writers)}, not {request.task}; take a model"
            )
        written = writers[request.task](request.context, np.random.default_rng(request.seed))
        return TextResult(written.model_dump_json())


def _plot(context: Mapping[str, Any], rng: Rng) -> Plot:
    places = _some(LOCATIONS, MIN_LOCATIONS, rng)
    people = draw_people(rng)
    things = _things(places, rng)
    keyword = _one(tuple(STYLES), rng)
    names = " and ".join(person.name for person in people)
    chapters = tuple(
        Outline(title=f"Part {number + 1}: {theme}", content=f"{names} live through {theme}.")
        for number in range(context["chapters"])
        for theme in [_one(CHAPTERS, rng)]
    )
    hero, aim = _one(people, rng), _one(things, rng).thing
    return Plot.model_validate(
        {
            "title": f"{hero.name} and {aim.phrase}",
            "overview": f"{names} meet in many places. {hero.name} cares most for {aim.phrase}.",
            "style": Style.model_validate({"keyword": keyword, "tone": TONES[keyword]}),
            "locations": places,
            "people": people,
            "things": things,
            "chapters": chapters,
        }
    )


def draw_people(rng: Rng) -> tuple[Person, ...]:
    """Three people who can be told apart; the first is a man, the second a woman."""
    clothes = _some(get_args(Clothes), 3, rng)
    hats = _some((*get_args(Hat), None), 3, rng)
    either: tuple[Gender, ...] = get_args(Gender)
    genders: list[Gender] = ["man", "woman", _one(either, rng)]
    names: list[str] = []
    for gender in genders:
        names.append(_one([n for n in NAMES[gender] if n not in names], rng))
    return tuple(
        Person(name=name, gender=gender, clothes=c, hat=hat, hair=_one(get_args(Hair), rng))
        for name, gender, c, hat in zip(names, genders, clothes, hats, strict=True)
    )


def _things(places: Sequence[Location], rng: Rng) -> tuple[PlacedThing, ...]:
    names = _some(get_args(ThingName), 4, rng)
    colours = _some(get_args(ThingColour), 4, rng)
    return tuple(
        PlacedThing(thing=Thing(name=name, colour=colour), location=_one(places, rng))
        for name, colour in zip(names, colours, strict=True)
    )


def _scenes(context: Mapping[str, Any], rng: Rng) -> Scenes:
    plot = Plot.model_validate(context["plot"])
    world = World.of(plot, context["world"])
    names = [person.name for person in plot.people]
    scenes: list[SceneOutline] = []
    for number in range(context["count"]):
        # Something must be there to act with: go where things lie, or where somebody has one.
        laden = [place for place in plot.locations if place in world.lies.values()]
        before = scenes[-1].location if scenes else None
        choice = [p for p in (laden if rng.random() < 0.7 else plot.locations) if p != before]
        place = _one(choice or [p for p in plot.locations if p != before], rng)
        people = _some(names, min(len(names), 2 + int(rng.random() < 0.4)), rng)
        scenes.append(
            SceneOutline(
                title=f"Scene {number + 1}: the {place}",
                content=f"{' and '.join(people)} are in the {place}.",
                location=place,
                people=tuple(people),
            )
        )
    return Scenes(scenes=tuple(scenes))


def _shots(context: Mapping[str, Any], rng: Rng) -> Shots:
    plot = Plot.model_validate(context["plot"])
    scene = SceneOutline.model_validate(context["scene"])
    world = World.of(plot, context["world"])
    world.open(scene)
    shots: list[Shot] = []
    for number in range(context["count"]):
        shot = _shot(world, scene, number, rng)
        world.act(shot, scene, number)
        shots.append(shot)
    return Shots(shots=tuple(shots))


def _shot(world: World, scene: SceneOutline, number: int, rng: Rng) -> Shot:
    able = [
        shot
        for shot in _conceivable(world, scene, rng)
        if world.refusal(shot, scene, opening=number == 0) is None
    ]
    answers = [shot for shot in able if (shot.actor, shot.thing) in world.asked]
    answers = [
        s for s in answers if s.action == "take" or s.to == world.asked[s.actor, s.thing or ""][0]
    ]
    asked = [s for s in able if s.action == "ask" and (s.to, s.thing) in world.asked]
    moves = [shot for shot in able if shot.thing is not None and shot not in asked]
    still = [shot for shot in able if shot.thing is None]
    if answers and rng.random() < ANSWER_SHARE:
        return _one(answers, rng)
    if moves and rng.random() < MOVE_SHARE:
        kind = _one(sorted({shot.action for shot in moves}), rng)
        return _one([shot for shot in moves if shot.action == kind], rng)
    return _one(still, rng)


def _conceivable(world: World, scene: SceneOutline, rng: Rng) -> list[Shot]:
    """A shot of every kind for everybody, whether the world admits it or not."""
    shots = []
    for name in scene.people:
        mood: Expression = _one(get_args(Expression), rng)
        line = _one(TALK[mood], rng)
        plain: dict[str, Any] = {"actor": name, "expression": mood}
        shots += [Shot(action=action, **plain) for action in STILL]  # type: ignore[arg-type]
        shots.append(Shot(action="talk", line=line, **plain))
        others = [other for other in scene.people if other != name]
        for thing in world.things:
            shots += [Shot(action=a, thing=thing, **plain) for a in ("take", "put")]
            for to in others:
                shots.append(Shot(action="give", thing=thing, to=to, **plain))
                verb = "give me" if world.held.get(thing) == to else "take"
                line = f"{to}, please {verb} the {thing}."
                shots.append(Shot(action="ask", thing=thing, to=to, line=line, **plain))
    return shots


def _one(choices: Sequence[Item], rng: Rng) -> Item:
    return choices[int(rng.integers(len(choices)))]


def _some(choices: Sequence[Item], count: int, rng: Rng) -> list[Item]:
    return [choices[int(i)] for i in rng.permutation(len(choices))[:count]]
