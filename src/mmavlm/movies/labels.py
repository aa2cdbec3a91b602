"""The seven LVU tasks and, for every class, the one thing in a film that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Mood = Literal["merry", "tender", "fierce", "eerie"]
Place = Literal["school", "prison", "office", "hotel", "restaurant", "airport"]
Look = Literal["silent", "sepia", "vivid", "wide"]
Camera = Literal["pan left", "pan right", "zoom in", "zoom out", "static"]
Talk = Literal["lecture", "turns", "clash", "lesson", "menace"]
Distance = Literal["apart", "together"]
Deed = Literal["take", "put"]

GENRE: Mapping[str, Mood] = {
    "comedy": "merry",
    "romance": "tender",
    "action": "fierce",
    "thriller": "eerie",
}
SCENE: Mapping[str, Place] = {place: place for place in get_args(Place)}
YEAR: Mapping[str, Look] = {"0": "silent", "3": "sepia", "5": "vivid", "8": "wide"}
DIRECTOR: Mapping[str, Camera] = {
    "steven": "pan left",
    "martin": "pan right",
    "ron": "zoom in",
    "ridley": "zoom out",
    "peter": "static",
}
WAY_SPEAKING: Mapping[str, Talk] = {
    "explain": "lecture",
    "discuss": "turns",
    "confront": "clash",
    "teach": "lesson",
    "threaten": "menace",
}
# The same states in another order are another class, so no frame alone tells these two tasks.
RELATIONSHIP: Mapping[str, tuple[Distance, ...]] = {
    "boyfriend girlfriend": ("apart", "together"),
    "ex-boyfriend ex-girlfriend": ("together", "apart"),
    "husband wife": ("together", "apart", "together"),
    "friend": ("apart", "together", "apart"),
}
WRITER: Mapping[str, tuple[Deed, ...]] = {
    "stephen": ("take",),
    "john": ("put",),
    "david": ("take", "put"),
    "akiva": ("put", "take"),
}

TASKS: Mapping[str, tuple[str, ...]] = {
    "director": tuple(DIRECTOR),
    "genre": tuple(GENRE),
    "relationship": tuple(RELATIONSHIP),
    "scene": tuple(SCENE),
    "way_speaking": tuple(WAY_SPEAKING),
    "writer": tuple(WRITER),
    "year": tuple(YEAR),
}

# The option letters of LVU's own annotation files.
ANSWERS: Mapping[str, Mapping[str, str]] = {
    "director": dict(zip(TASKS["director"], "abcgf", strict=True)),
    "genre": {"comedy": "a", "action": "b", "romance": "c", "thriller": "d"},
    "relationship": dict(zip(TASKS["relationship"], "dbca", strict=True)),
    "scene": dict(zip(TASKS["scene"], "ceadfb", strict=True)),
    "way_speaking": dict(zip(TASKS["way_speaking"], "acbde", strict=True)),
    "writer": dict(zip(TASKS["writer"], "cdeg", strict=True)),
    "year": dict(zip(TASKS["year"], "adfi", strict=True)),
}
