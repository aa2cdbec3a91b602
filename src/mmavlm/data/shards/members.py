"""What the members of a shard are, by their names, which are data and never trusted.

Members with one key (the name up to the first full stop of its last part) make one sample, as
WebDataset has it: a film, or its frames as JPEGs, and what is said of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from mmavlm.core.errors import DataError
from mmavlm.core.medium import Kind
from mmavlm.data import film_features
from mmavlm.data.pictures import FRAME_NAME
from mmavlm.data.sources import LONGEST_PART, VIDEO_SUFFIXES

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FRAME_SUFFIXES = (".jpg", ".jpeg")
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac")
SAID_SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")
TRANSCRIPT = "said.json"  # a transcript, as Whisper writes it, and no annotation
ITEMS = "items.json"  # all that a set of ours says of a film: the index has it
FRAMES = ".frames"  # the folder of a key's frames
FRAME_ENDING = re.compile(r"(?:frame)?(\d+)\.(?:jpe?g)")
DEEPEST = 8
# Names that are harmless at a glance, as most are.
SIMPLE = re.compile(r"(?:\w[\w.-]{0,99}/){0,7}\w[\w.-]{0,99}", re.ASCII)
MOST_MEMBERS = 1_000_000  # of a shard
MOST_TEXT = 16 * 2**20  # bytes of an annotation

What = Literal["video", "features", "frame", "picture", "sound", "said", "json", "txt", "items"]
# What a sample shows, where it holds several of these.
SHOWN: tuple[What, ...] = ("video", "features", "frame", "picture", "sound")


@dataclass(frozen=True)
class Part:
    """What a member is of its sample: `what`, of `key`; `number` is that of a frame."""

    key: str
    what: What
    ending: str
    number: int = 0

    @property
    def is_text(self) -> bool:
        """Whether it is read into the index, and not unpacked."""
        return self.what in ("json", "txt", "items")

    @property
    def path(self) -> str:
        """Where it lies once unpacked; of a frame, its folder."""
        return self.key + FRAMES if self.what == "frame" else f"{self.key}.{self.ending}"

    @property
    def kind(self) -> Kind:
        """The kind of medium that it is."""
        return self.what if self.what in ("picture", "sound") else "film"


def part_of(name: str) -> Part | None:
    """What a member is; None if it is nothing that is read, whatever else it holds.

    Raises:
        DataError: if the name is none that a file below a folder may have.
    """
    name = name.removeprefix("./")
    check_name(name)
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    key, lower = folder + slash + stem, ending.lower()
    if (frame := FRAME_ENDING.fullmatch(lower)) is not None:
        return Part(key, "frame", lower, int(frame[1][-9:]))
    what = _what(lower)
    return None if what is None or not stem else Part(key, what, ending)


def check_name(name: str) -> None:
    """Refuse a name that leads out of a folder, on any system, or that no file should have.

    Raises:
        DataError: naming it.
    """
    if SIMPLE.fullmatch(name):
        return
    parts = name.split("/")
    fine = (
        name.isprintable()
        and "\\" not in name
        and not re.match(r"[A-Za-z]:", name)
        and len(parts) <= DEEPEST
        and all(
            part and not part.startswith(".") and len(part.encode()) <= LONGEST_PART
            for part in parts
        )
        and name == str(PurePosixPath(name))
    )
    if not fine:
        raise DataError(f"its name {name[:80]!r} is none that a member may have")


def _what(ending: str) -> What | None:
    named: dict[str, What] = {"json": "json", "txt": "txt", ITEMS: "items", TRANSCRIPT: "said"}
    if ending in named:
        return named[ending]
    suffix = "." + ending.rpartition(".")[2]
    groups: tuple[tuple[What, tuple[str, ...]], ...] = (
        ("video", VIDEO_SUFFIXES),
        ("features", (film_features.SUFFIX,)),
        ("picture", PICTURE_SUFFIXES),
        ("sound", SOUND_SUFFIXES),
        ("said", SAID_SUFFIXES),
    )
    return next((what for what, suffixes in groups if suffix in suffixes), None)


def frame_name(place: int) -> str:
    """The name of a frame in its folder, counted from 0, where readers of frames look for it."""
    return FRAME_NAME.format(place + 1)


@dataclass
class Sample:
    """The members of one key: what it shows, what is said of it, and what is wrong with it."""

    key: str
    parts: dict[str, Part] = field(default_factory=dict)  # by where they lie
    texts: dict[What, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def shown(self) -> Part | None:
        """What it shows; None if nothing."""
        there = [part for part in self.parts.values() if part.what in SHOWN]
        return min(there, key=lambda part: SHOWN.index(part.what), default=None)
