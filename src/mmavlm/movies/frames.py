"""What any image generator is given: the style of a film, and each of its frames as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmavlm.movies.vocabulary import Action, Expression, Person, Style, Thing, Words

Picture = NDArray[np.uint8]

VERBS: Mapping[Action, str] = {
    "stand": "standing",
    "sit": "sitting",
    "point": "pointing",
    "talk": "talking",
    "ask": "asking",
    "take": "taking something",
    "put": "putting something down",
    "give": "handing something over",
}


class Actor(Words):
    """A person in a frame; `holds` is what is in the hand, `asks_for` what the words are about."""

    person: Person
    action: Action
    expression: Expression
    holds: Thing | None = None
    asks_for: Thing | None = None
    speaks: bool = False


class FrameSpec(Words):
    """One frame: place, people from left to right, what lies and stands there, the words.

    `things` lie on the shelf, `decor` stands in the place; `furnished` adds what it always has.
    """

    location: str
    actors: tuple[Actor, ...]
    things: tuple[Thing, ...] = ()
    decor: tuple[str, ...] = ()
    furnished: bool = True
    line: str | None = None

    @property
    def text(self) -> str:
        """The frame in words: the prompt of a model that draws from text."""
        people = [_described(actor) for actor in self.actors]
        lying = [thing.phrase for thing in self.things] + [f"a {name}" for name in self.decor]
        seen = f", with {', '.join(lying)}" if lying else ""
        return f"{', '.join(people) or 'nobody'}, in the {self.location}{seen}"


def _described(actor: Actor) -> str:
    holds = f", holding {actor.holds.phrase}" if actor.holds else ""
    return f"{actor.person.appearance}, {actor.expression}, {VERBS[actor.action]}{holds}"


@runtime_checkable
class ImageGenerator(Protocol):
    """Draws frames in one style, held through a film."""

    @property
    def fingerprint(self) -> str:
        """What the pictures depend on, besides frames, style and seeds."""

    def prepare_style(self, style: Style, seed: int) -> Any:
        """What holds the style through a film: made once, handed to every `render`."""

    def render(
        self, frames: Sequence[FrameSpec], style: Any, seeds: Sequence[int]
    ) -> Iterator[Picture]:
        """Pictures, uint8 (H,W,3) with even H and W, one a frame, in order."""
