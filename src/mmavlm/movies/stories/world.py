"""The world of a story: who and what is where, and which shots its state admits.

A shot that the world does not admit is refused, so whatever wrote the story, the log of the world
is true of its frames.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmavlm.movies.frames import Actor, FrameSpec
from mmavlm.movies.stories.plan import Plot, SceneOutline, Shot, Shots
from mmavlm.movies.vocabulary import Expression, Person, Thing

MOVES = ("take", "put", "give")  # what changes who has a thing
ABOUT_THINGS = ("ask", *MOVES)
TO_PEOPLE = ("ask", "give")
SPOKEN = ("talk", "ask")
MAX_ALIKE = 2  # frames in a row with the same actor and action (MovieLLM)


@dataclass(frozen=True)
class Moment:
    """A frame as it is drawn, and its row of the log."""

    frame: FrameSpec
    row: dict[str, Any]


@dataclass
class World:
    """Who is where and has what; people by name, things by colour and name.

    `asked` has the open requests: (asked person, thing) → (asking person, frame of the request).
    """

    people: dict[str, Person]
    things: dict[str, Thing]
    lies: dict[str, str]
    place: dict[str, str | None]
    held: dict[str, str] = field(default_factory=dict)
    mood: dict[str, Expression] = field(default_factory=dict)
    asked: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    _last: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, plot: Plot, state: Mapping[str, Any] | None = None) -> World:
        """The world when the film begins, things lying where the plot says, or in a `summary`."""
        things = {key(placed.thing): placed for placed in plot.things}
        return cls(
            people={person.name: person for person in plot.people},
            things={name: placed.thing for name, placed in things.items()},
            lies=dict(state["lies"]) if state else {n: p.location for n, p in things.items()},
            held=dict(state["held"]) if state else {},
            place={person.name: None for person in plot.people},
        )

    def open(self, scene: SceneOutline) -> None:
        """The people of a scene come to its place; what was asked for in the last one is over."""
        self.asked.clear()
        self._last.clear()
        for name, place in self.place.items():
            if name in scene.people:
                self.place[name] = scene.location
                self.mood[name] = "neutral"
            elif place == scene.location:  # gone meanwhile, nobody saw where to
                self.place[name] = None

    def hand(self, name: str) -> str | None:
        """What a person holds: one thing at most."""
        return next((thing for thing, holder in self.held.items() if holder == name), None)

    def refusal(self, shot: Shot, scene: SceneOutline, *, opening: bool) -> str | None:
        """Why the world does not admit a shot; None if it does."""
        if shot.actor not in scene.people:
            return f"{shot.actor} is not in the scene; {list(scene.people)} are"
        if opening and shot.action in MOVES:
            return f"the first shot of a scene only shows it; {shot.action} must come later"
        if (shot.thing is None) == (shot.action in ABOUT_THINGS):
            return f"{shot.action} {'needs' if shot.thing is None else 'has no'} thing"
        if (shot.to is None) == (shot.action in TO_PEOPLE):
            return f"{shot.action} {'needs' if shot.to is None else 'has no'} to"
        if (not shot.line) == (shot.action in SPOKEN):
            return f"{shot.action} {'has no' if shot.line else 'needs a'} line"
        if shot.to is not None and (shot.to not in scene.people or shot.to == shot.actor):
            return f"to={shot.to} must be another one of {list(scene.people)}"
        if self._last[-MAX_ALIKE:] == [(shot.actor, shot.action)] * MAX_ALIKE:
            return f"{shot.actor} has done {shot.action} in {MAX_ALIKE} shots in a row"
        return self._no_way(shot, scene.location) if shot.thing is not None else None

    def _no_way(self, shot: Shot, here: str) -> str | None:
        thing, hand = shot.thing or "", self.hand(shot.actor)
        if thing not in self.things:
            return f"there is no {thing}; there are {sorted(self.things)}"
        if shot.action == "take" and (self.lies.get(thing) != here or hand is not None):
            return f"{shot.actor} cannot take the {thing}: it must lie here and the hand be free"
        if shot.action in ("put", "give") and hand != thing:
            return f"{shot.actor} does not hold the {thing}"
        if shot.action == "give" and self.hand(shot.to or "") is not None:
            return f"{shot.to} has no hand free"
        if (
            shot.action == "ask"
            and self.lies.get(thing) != here
            and self.held.get(thing) != shot.to
        ):
            return f"the {thing} neither lies here nor is held by {shot.to}"
        return None

    def act(self, shot: Shot, scene: SceneOutline, index: int) -> tuple[str, int] | None:
        """Let a shot happen in frame `index`; who asked for it in which frame, if anybody did."""
        self.mood[shot.actor] = shot.expression
        self._last.append((shot.actor, shot.action))
        because = None
        thing = shot.thing or ""
        if shot.action == "ask":
            self.asked[shot.to or "", thing] = (shot.actor, index)
        elif shot.action == "take":
            because = self.asked.get((shot.actor, thing))
            del self.lies[thing]
            self.held[thing] = shot.actor
        elif shot.action == "give":
            asked = self.asked.get((shot.actor, thing))
            because = asked if asked and asked[0] == shot.to else None
            self.held[thing] = shot.to or ""
        elif shot.action == "put":
            del self.held[thing]
            self.lies[thing] = scene.location
        if shot.action in ("give", "put"):
            self.asked = {pair: by for pair, by in self.asked.items() if pair[1] != thing}
        return because

    def frame(self, shot: Shot, scene: SceneOutline, decor: Sequence[str]) -> FrameSpec:
        """What is seen after the shot: its people from left to right, and what lies there."""
        actors = []
        for name in scene.people:
            acts, thing = name == shot.actor, self.hand(name)
            actors.append(
                Actor(
                    person=self.people[name],
                    action=shot.action if acts else "stand",
                    expression=self.mood[name],
                    holds=self.things[thing] if thing else None,
                    asks_for=self.things[shot.thing or ""]
                    if acts and shot.action == "ask"
                    else None,
                    speaks=acts and shot.action in SPOKEN,
                )
            )
        lying = tuple(self.things[name] for name, at in self.lies.items() if at == scene.location)
        return FrameSpec(
            location=scene.location,
            actors=tuple(actors),
            things=tuple(sorted(lying, key=key)),
            decor=tuple(decor),
            line=shot.line,
        )

    def row(self, shot: Shot, scene: SceneOutline) -> dict[str, Any]:
        """The state after the shot: who is where, in which mood, and where every thing is."""
        phrase = {name: person.phrase for name, person in self.people.items()}
        event = {
            "actor": phrase[shot.actor],
            "action": shot.action,
            "thing": self.things[shot.thing].phrase if shot.thing else None,
            "to": phrase[shot.to] if shot.to else None,
        }
        return {
            "location": scene.location,
            "people": {
                phrase[name]: {
                    "location": at,
                    "seen": name in scene.people,
                    "expression": self.mood.get(name, "neutral"),
                }
                for name, at in self.place.items()
            },
            "things": {
                thing.phrase: {
                    "lies": self.lies.get(name),
                    "held_by": phrase[self.held[name]] if name in self.held else None,
                }
                for name, thing in self.things.items()
            },
            "event": event,
            "line": shot.line,
        }

    def summary(self) -> dict[str, Any]:
        """Where things are, as a generator is told it."""
        return {"lies": dict(self.lies), "held": dict(self.held)}


def key(thing: Thing) -> str:
    """How shots name a thing: `red cup`."""
    return f"{thing.colour} {thing.name}"


def check_shots(shots: Shots, world: World, scene: SceneOutline, count: int) -> None:
    """Whether a scene has the asked shots, each of them admitted where it comes.

    Raises:
        ValueError: naming the first shot that is not, and why.
    """
    if len(shots.shots) != count:
        raise ValueError(f"{count} shots are asked for, got {len(shots.shots)}")
    trial = copy.deepcopy(world)
    for number, shot in enumerate(shots.shots):
        refusal = trial.refusal(shot, scene, opening=number == 0)
        if refusal:
            raise ValueError(f"shot {number + 1}: {refusal}")
        trial.act(shot, scene, number)
