"""Script → caption: what can be seen, in at most `MAX_WORDS` words, true by construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmavlm.movies.labels import Camera, Deed, Distance, Look, Mood, Place
from mmavlm.movies.script import Character, Movie

MAX_WORDS = 50  # what is kept of a caption when texts are cleaned up for training

MOODS: Mapping[Mood, tuple[str, ...]] = {
    "merry": ("a funny", "a merry", "a cheerful"),
    "tender": ("a romantic", "a tender", "a dreamy"),
    "fierce": ("a wild", "a fierce", "a thrilling"),
    "eerie": ("an eerie", "a gloomy", "a foggy"),
}
LOOKS: Mapping[Look, tuple[str, ...]] = {
    "silent": ("black and white film", "grainy black and white video", "old silent film"),
    "sepia": ("sepia film", "faded brown film", "old sepia video"),
    "vivid": ("vivid colour film", "brightly coloured video", "garish television show"),
    "wide": ("widescreen film", "clean widescreen video", "modern letterboxed film"),
}
PLACES: Mapping[Place, tuple[str, ...]] = {
    "school": ("in a school", "at a school"),
    "prison": ("in a prison", "inside a prison"),
    "office": ("in an office", "at the office"),
    "hotel": ("in a hotel", "inside a hotel"),
    "restaurant": ("in a restaurant", "at a restaurant"),
    "airport": ("at an airport", "inside an airport"),
}
COURSES: Mapping[tuple[Distance, ...], tuple[str, ...]] = {
    ("apart", "together"): (
        "start far apart and end close together",
        "stand apart and then come together",
    ),
    ("together", "apart"): (
        "start close together and end far apart",
        "stand together and then separate",
    ),
    ("together", "apart", "together"): (
        "separate and come back together",
        "stand together, drift apart and reunite",
    ),
    ("apart", "together", "apart"): (
        "come together and separate again",
        "stand apart, meet for a while and part",
    ),
}
DEEDS: Mapping[tuple[Deed, ...], tuple[str, ...]] = {
    ("take",): ("takes {} from the shelf", "removes {} from the shelf"),
    ("put",): ("puts {} on the shelf", "leaves {} on the shelf"),
    ("take", "put"): ("takes {} from the shelf and later puts it back",),
    ("put", "take"): ("puts {} on the shelf and later takes it away",),
}
CAMERAS: Mapping[Camera, str] = {
    "pan left": "the camera pans left",
    "pan right": "the camera pans right",
    "zoom in": "the camera zooms in",
    "zoom out": "the camera zooms out",
    "static": "the camera stands still",
}


def write_caption(movie: Movie) -> str:
    """Two or three sentences telling place, mood, era, people, objects and what happens in order.

    Talk, camera and decor come in chance order, as far as they fit in `MAX_WORDS`. Colours are
    left out of a black and white film.
    """
    rng = np.random.default_rng([movie.seed, 1])
    left, right = movie.characters
    opening = (
        f"{_pick(MOODS[movie.mood], rng)} {_pick(LOOKS[movie.look], rng)} "
        f"{_pick(PLACES[movie.scene.place], rng)}: {_person(left, movie)} and "
        f"{_person(right, movie)} {_pick(COURSES[movie.course], rng)}"
    )
    sentences = [opening, _deed(movie, rng)]
    asides = [_talk(movie), CAMERAS[movie.camera], _decor(movie)]
    for i in rng.permutation(len(asides)):
        if sum(len(sentence.split()) for sentence in (*sentences, asides[i])) <= MAX_WORDS:
            sentences.append(asides[i])
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def _pick(phrases: Sequence[str], rng: np.random.Generator) -> str:
    return phrases[int(rng.integers(len(phrases)))]


def _person(character: Character, movie: Movie) -> str:
    garment = "dress" if character.gender == "woman" else "shirt"
    wears = [] if movie.look == "silent" else [f"a {character.clothes} {garment}"]
    if character.hat is not None:
        wears.append(f"a {character.hat}")
    if not wears:
        return f"a bareheaded {character.gender}"
    return f"a {character.gender} in {' and '.join(wears)}"


def _deed(movie: Movie, rng: np.random.Generator) -> str:
    token = movie.token
    thing = f"a {token.name}" if movie.look == "silent" else f"a {token.colour} {token.name}"
    return f"the {_gender(movie, movie.token_events[0].subject)} " + _pick(
        DEEDS[movie.deeds], rng
    ).format(thing)


def _talk(movie: Movie) -> str:
    loudest = max(
        movie.words, key=lambda event: (event.gesture != "none", event.end_s - event.start_s)
    )
    speaker = _gender(movie, loudest.subject)
    other = "man" if speaker == "woman" else "woman"
    return {
        "lecture": f"only the {speaker} talks",
        "turns": "they talk in turns",
        "clash": "both shout at the same time",
        "lesson": f"the {speaker} raises a hand to teach and the {other} answers",
        "menace": f"the {speaker} raises a fist and shouts",
    }[movie.talk]


def _decor(movie: Movie) -> str:
    first, second = (prop.name for prop in movie.scene.props if prop.role == "decor")
    return f"there are a {first} and a {second}"


def _gender(movie: Movie, name: str) -> str:
    return next(c.gender for c in movie.characters if c.name == name)
