"""Seeded scripts: labels are drawn as a balanced random factorial, everything else is chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from mmavlm.movies.labels import (
    DIRECTOR,
    GENRE,
    RELATIONSHIP,
    SCENE,
    TASKS,
    WAY_SPEAKING,
    WRITER,
    YEAR,
    Deed,
    Distance,
    Place,
    Talk,
)
from mmavlm.movies.script import Character, Event, Movie, Prop, Put, Scene, Speak, Take, Walk

Rng = np.random.Generator

CLOTHES = ("red", "yellow", "green", "blue", "purple", "white")
HATS = ("top hat", "cap", "beanie", "crown", None)
HAIR = ("black", "brown", "blond", "ginger")
NAMES: Mapping[Literal["man", "woman"], tuple[str, ...]] = {
    "man": ("Adam", "Boris", "Carl", "Diego", "Emil", "Felix", "Hugo", "Ivan", "Jamal", "Kenji"),
    "woman": ("Alma", "Bella", "Clara", "Dina", "Elif", "Freya", "Greta", "Hana", "Ines", "Kira"),
}
TOKENS = ("cup", "ball", "gift", "book", "star", "key")
TOKEN_COLOURS = ("red", "green", "blue", "purple", "golden")
WALL_DECOR = ("clock", "painting", "mirror", "poster")
FLOOR_DECOR = ("plant", "lamp", "cat", "bin")
FURNITURE: Mapping[Place, tuple[str, str]] = {
    "school": ("blackboard", "school desk"),
    "prison": ("barred window", "bunk"),
    "office": ("chart", "computer desk"),
    "hotel": ("key rack", "bed"),
    "restaurant": ("menu board", "dining table"),
    "airport": ("plane window", "suitcases"),
}

WALL_X, SHELF_X, FLOOR_X = 0.17, 0.5, 0.5  # the set before mirroring: furniture left, decor right
MOVING_SHARE = 0.1  # of the film in transition, whether in one stretch or in two
SHORTEST_PHASE = 0.2  # of the film
STATE_SHARE = (
    0.445,
    0.555,
)  # of the rest, for each of the two states a timeline alternates between


def plan_labels(count: int, rng: Rng) -> list[dict[str, str]]:
    """The labels of `count` films: each task's classes in equal number, independent of the others.

    Class counts of a task differ by at most one; which classes get the odd film is chance.
    """
    columns = {}
    for task, classes in TASKS.items():
        rounds = -(-count // len(classes))
        drawn = np.concatenate([rng.permutation(len(classes)) for _ in range(rounds)])[:count]
        columns[task] = [classes[i] for i in rng.permutation(drawn)]
    return [{task: column[i] for task, column in columns.items()} for i in range(count)]


def write_script(
    movie_id: str, labels: Mapping[str, str], duration_s: float, seed: Sequence[int]
) -> Movie:
    """The film that shows `labels`; all that the labels leave open follows from `seed`.

    Each concern has its own random stream: with the same seed, changing one label changes only
    what that label rules.
    """
    cast_rng, set_rng, walk_rng, token_rng, talk_rng, last_rng = np.random.default_rng(seed).spawn(
        6
    )
    characters = _cast(cast_rng)
    scene = _scene(SCENE[labels["scene"]], set_rng)
    start_x, walks = _walks(RELATIONSHIP[labels["relationship"]], characters, duration_s, walk_rng)
    token = next(prop for prop in scene.props if prop.role == "token")
    deeds = _deeds(WRITER[labels["writer"]], characters, token.name, duration_s, token_rng)
    talk = WAY_SPEAKING[labels["way_speaking"]]
    events: list[Event] = [*walks, *deeds, *_talk(talk, characters, duration_s, talk_rng)]
    return Movie(
        movie_id=movie_id,
        duration_s=duration_s,
        seed=int(last_rng.integers(2**31)),
        scene=scene,
        mood=GENRE[labels["genre"]],
        look=YEAR[labels["year"]],
        camera=DIRECTOR[labels["director"]],
        talk=talk,
        characters=characters,
        start_x=start_x,
        events=tuple(sorted(events, key=lambda e: (e.start_s, e.end_s, e.kind, e.subject))),
    )


def _cast(rng: Rng) -> tuple[Character, Character]:
    genders: list[Literal["man", "woman"]] = ["man", "woman"]
    if rng.random() < 0.5:
        genders.reverse()
    clothes = rng.choice(CLOTHES, 2, replace=False)
    hats = rng.permutation(len(HATS))
    left, right = (
        Character(
            name=str(rng.choice(NAMES[gender])),
            gender=gender,
            clothes=str(clothes[i]),
            hat=HATS[hats[i]],
            hair=str(rng.choice(HAIR)),
            skin=int(rng.integers(3)),
            height=round(float(rng.uniform(0.39, 0.46)), 4),
        )
        for i, gender in enumerate(genders)
    )
    return left, right


def _scene(place: Place, rng: Rng) -> Scene:
    mirrored = bool(rng.random() < 0.5)

    def x(plain: float, jitter: float = 0.02) -> float:
        moved = plain + float(rng.uniform(-jitter, jitter))
        return round(1.0 - moved if mirrored else moved, 4)

    on_wall, on_floor = FURNITURE[place]
    floor_side = float(rng.choice([0.06, 0.94]))
    return Scene(
        place=place,
        mirrored=mirrored,
        props=(
            Prop(name=on_wall, role="furniture", x=x(WALL_X)),
            Prop(name=on_floor, role="furniture", x=x(FLOOR_X, 0.06)),
            Prop(name=str(rng.choice(WALL_DECOR)), role="decor", x=x(1.0 - WALL_X)),
            Prop(name=str(rng.choice(FLOOR_DECOR)), role="decor", x=x(floor_side)),
            Prop(
                name=str(rng.choice(TOKENS)),
                role="token",
                x=x(SHELF_X, 0.04),
                colour=str(rng.choice(TOKEN_COLOURS)),
            ),
        ),
    )


def _transitions(states: Sequence[str], duration_s: float, rng: Rng) -> list[tuple[float, float]]:
    """When each of `states` gives way to the next: (start_s, end_s), one fewer than states.

    Two states alternate, over two or three phases. In whatever order they come, each state holds
    for the same share of the film and changing takes the same share, so an unordered bag of
    frames says nothing about the order. Every phase lasts at least `SHORTEST_PHASE`.
    """
    still = 1.0 - MOVING_SHARE
    share, cut = rng.uniform(*STATE_SHARE) * still, rng.random()
    amount = dict(zip(sorted(set(states)), (share, still - share), strict=True))
    first = amount[states[0]]
    if len(states) == 3:
        first = SHORTEST_PHASE + cut * (first - 2 * SHORTEST_PHASE)
    spans = [first, amount[states[1]]][: len(states) - 1]
    moving = MOVING_SHARE / len(spans)
    changes, now = [], 0.0
    for span in spans:
        changes.append((now + span, now + span + moving))
        now += span + moving
    return [(round(a * duration_s, 3), round(b * duration_s, 3)) for a, b in changes]


def _walks(
    course: Sequence[Distance],
    characters: tuple[Character, Character],
    duration_s: float,
    rng: Rng,
) -> tuple[tuple[float, float], list[Walk]]:
    gaps = {"apart": rng.uniform(0.50, 0.54), "together": rng.uniform(0.19, 0.22)}
    middle = rng.uniform(0.48, 0.52)
    mover = str(rng.choice(["left", "right", "both"]))

    def stand(distance: Distance) -> tuple[float, float]:
        if mover == "both":
            half = gaps[distance] / 2
            return round(middle - half, 4), round(middle + half, 4)
        half = gaps["apart"] / 2
        if mover == "left":
            return round(middle + half - gaps[distance], 4), round(middle + half, 4)
        return round(middle - half, 4), round(middle - half + gaps[distance], 4)

    walks = []
    for i, (start_s, end_s) in enumerate(_transitions(course, duration_s, rng)):
        for character, x_from, x_to in zip(
            characters, stand(course[i]), stand(course[i + 1]), strict=True
        ):
            if x_from != x_to:
                walks.append(
                    Walk(
                        start_s=start_s,
                        end_s=end_s,
                        subject=character.name,
                        x_from=x_from,
                        x_to=x_to,
                    )
                )
    return stand(course[0]), walks


def _deeds(
    deeds: Sequence[Deed],
    characters: tuple[Character, Character],
    token: str,
    duration_s: float,
    rng: Rng,
) -> list[Take | Put]:
    subject = characters[int(rng.integers(2))].name
    after = {"take": "empty", "put": "full"}
    before = {"take": "full", "put": "empty"}
    changes = _transitions([before[deeds[0]], *(after[deed] for deed in deeds)], duration_s, rng)
    kinds: dict[Deed, type[Take] | type[Put]] = {"take": Take, "put": Put}
    return [
        kinds[deed](start_s=start_s, end_s=end_s, subject=subject, object=token)
        for deed, (start_s, end_s) in zip(deeds, changes, strict=True)
    ]


def _talk(
    talk: Talk, characters: tuple[Character, Character], duration_s: float, rng: Rng
) -> Iterator[Speak]:
    """Who speaks when, how: the rhythm that shows the way of speaking."""
    a, b = (characters[i].name for i in rng.permutation(2))
    tone: Literal["calm", "sharp"] = "sharp" if talk in ("clash", "menace") else "calm"
    gesture: dict[str, Literal["point", "fist"]] = {"lesson": "point", "menace": "fist"}
    # voices in parallel, each a cycle of (speaker, shortest and longest turn, pause after it) in s
    turns: dict[Talk, list[list[tuple[str, float, float, float]]]] = {
        "lecture": [[(a, 1.6, 2.2, 0.4)]],
        "turns": [[(a, 0.9, 1.3, 0.2), (b, 0.9, 1.3, 0.2)]],
        "clash": [[(a, 0.4, 0.7, 0.2)], [(b, 0.4, 0.7, 0.2)]],
        "lesson": [[(a, 1.2, 1.6, 0.2), (b, 0.5, 0.7, 0.3)]],
        "menace": [[(a, 0.8, 1.0, 1.2)]],
    }
    for voice in turns[talk]:
        now = float(rng.uniform(0.0, 0.3))
        turn = 0
        while now < duration_s - 0.2:
            speaker, shortest, longest, pause = voice[turn % len(voice)]
            end = min(duration_s, now + float(rng.uniform(shortest, longest)))
            yield Speak(
                start_s=round(now, 3),
                end_s=round(end, 3),
                subject=speaker,
                tone=tone,
                gesture=gesture.get(talk, "none") if speaker == a else "none",
            )
            now = end + pause
            turn += 1
