"""What films with a planted bias show beside what is planted: a style, and people in poses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mmavlm.movies.frames import Actor
from mmavlm.movies.generators.grammar import TONES
from mmavlm.movies.vocabulary import STYLES, Action, Person, Style

POSES: tuple[Action, ...] = ("stand", "sit", "point")

Rng = np.random.Generator


def draw_style(rng: Rng) -> Style:
    """A style, drawn at random."""
    keyword = sorted(STYLES)[int(rng.integers(len(STYLES)))]
    return Style.model_validate({"keyword": keyword, "tone": TONES[keyword]})


def posed(people: Sequence[Person], rng: Rng) -> tuple[Actor, ...]:
    """The two people of a frame, one of whom may sit or point."""
    acts, pose = int(rng.integers(2)), POSES[int(rng.integers(len(POSES)))]
    return tuple(
        Actor(person=p, action=pose if i == acts else "stand", expression="neutral")
        for i, p in enumerate(people)
    )


def listed(names: Iterable[str]) -> str:
    """`a bin, a cat and a lamp`; nothing of no names."""
    told = [f"a {name}" for name in sorted(names)]
    return " and ".join(filter(None, (", ".join(told[:-1]), *told[-1:])))
