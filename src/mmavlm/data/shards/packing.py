"""Sets as shards: which items go into which shard, and under which names their films lie there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.settings import above_zero
from mmavlm.data.shards.index import KINDS
from mmavlm.data.shards.members import FRAMES, ITEMS, TRANSCRIPT, part_of
from mmavlm.data.shards.packed_items import plain_item
from mmavlm.data.subtitles import SUFFIXES

MB = 10**6


@dataclass(frozen=True)
class Packing:
    """How shards are made: `kind` is .tar or .parquet, `shard_mb` the megabytes of films in each.

    With `frames_fps` films become JPEGs at that rate, the short side `short_side` pixels;
    `frame_fps` is the rate of films that are folders of JPEGs. `beside` says that subtitles beside
    films go along.

    Raises:
        ConfigError: if there is no such kind, or a number is out of range.
    """

    kind: str = ".tar"
    shard_mb: float = 256
    frames_fps: float | None = None
    short_side: int = 256
    frame_fps: float = 10.0
    beside: bool = False

    def __post_init__(self) -> None:
        above_zero("", shard_mb=self.shard_mb, frames_fps=self.frames_fps)
        if self.kind not in KINDS:
            known = " or ".join(kind[1:] for kind in KINDS)
            raise ConfigError(f"format={self.kind[1:]} is unknown; choose {known}")
        if self.frames_fps is not None and self.frames_fps != self.frame_fps:
            raise ConfigError(
                f"frames_fps={self.frames_fps:g}, but data.frame_fps={self.frame_fps:g} is the "
                "rate at which frames are read; give both the same"
            )


@dataclass(frozen=True)
class Plan:
    """One shard to be: its name, and its items, those about one film together."""

    name: str
    items: tuple[Item, ...]
    packing: Packing

    @cached_property
    def media(self) -> dict[Path, Medium]:
        """Each film once, by where it lies, in order."""
        found: dict[Path, Medium] = {}
        for item in self.items:
            for medium in item.conversation.media:
                held = found.setdefault(medium.source, medium)
                if held.kind != medium.kind and self.packing.frames_fps is not None:
                    raise DataError(
                        f"{medium.source} is shown as {held.kind} and as {medium.kind}, and JPEGs "
                        "have no sound; leave frames_fps out"
                    )
        return found

    @cached_property
    def keys(self) -> dict[Path, str]:
        """The key of each film."""
        return {path: f"{number:06d}" for number, path in enumerate(self.media)}

    @cached_property
    def names(self) -> dict[Path, str]:
        """Where each film, and what is said in it, lies in the shard.

        Raises:
            DataError: naming a file of a kind that no shard holds.
        """
        found = {path: key + self._ending(path) for path, key in self.keys.items()}
        for path, medium in self.media.items():
            if self.packing.beside and medium.kind == "film":
                for said in _beside(path):
                    found.setdefault(said, self.keys[path] + said.suffix)
        for number, said in enumerate(self._said()):
            ending = f".{TRANSCRIPT}" if said.suffix.lower() == ".json" else said.suffix
            found.setdefault(said, f"said{number:06d}{ending}")
        for path, name in found.items():
            if not name.endswith(FRAMES) and part_of(name) is None:
                raise DataError(
                    f"{path} is of a kind that no shard holds ({path.suffix or 'no suffix'}); "
                    "rename it by what it is, or leave its items out"
                )
        return found

    def texts(self) -> Iterator[tuple[str, str]]:
        """Name and content of what is said of each film, in order."""
        together: dict[str, list[Item]] = {}
        for number, item in enumerate(self.items):
            media = item.conversation.media
            key = self.keys[media[0].source] if media else f"text{number:06d}"
            together.setdefault(key, []).append(item)
        for key, items in together.items():
            plain = [plain_item(item, self.names) for item in items]
            yield f"{key}.{ITEMS}", json.dumps({"items": plain}, ensure_ascii=False)

    @cached_property
    def mark(self) -> str:
        """What changes when anything does that the shard is made of."""
        texts = list(self.texts())
        files = [(name, *identity_of(path)) for path, name in self.names.items()]
        packing = [self.packing.frames_fps, self.packing.short_side, self.packing.kind]
        return hashlib.sha256(json.dumps([texts, files, packing]).encode()).hexdigest()[:32]

    def _ending(self, path: Path) -> str:
        medium = self.media[path]
        extracted = self.packing.frames_fps is not None and medium.kind == "film"
        if path.is_dir() or (extracted and path.suffix != ".safetensors"):
            return FRAMES
        return path.suffix.lower()

    def _said(self) -> dict[Path, None]:
        media = (medium for item in self.items for medium in item.conversation.media)
        return {medium.subtitles: None for medium in media if medium.subtitles is not None}


def planned(items: Sequence[Item], split: str, packing: Packing) -> Iterator[Plan]:
    """The shards of a split, in the order of the films that items show first.

    A film lies once in each shard whose items show it. Shards are cut behind the film with which
    they reach their size.
    """
    held: list[Item] = []
    size, number = 0.0, 0
    films: set[Path] = set()
    for group in _by_film(items):
        shown = {m.source for item in group for m in item.conversation.media} - films
        films |= shown
        size += sum(map(bytes_of, shown)) + sum(_bytes_of_text(item) for item in group)
        held += group
        if size >= packing.shard_mb * MB:
            yield Plan(_named(split, number, packing), tuple(held), packing)
            held, size, films, number = [], 0.0, set(), number + 1
    if held:
        yield Plan(_named(split, number, packing), tuple(held), packing)


def bytes_of(path: Path) -> int:
    """What a film takes, a file or a folder of frames."""
    return identity_of(path)[0]


def identity_of(path: Path) -> tuple[int, int]:
    """Size and time of change of a film, the latest of a folder's files.

    Raises:
        DataError: if it is gone.
    """
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [file.stat() for file in files]
    except OSError as error:
        raise DataError(f"{path} cannot be packed: {error.strerror}; start again") from None
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def _by_film(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items, those whose first film is one and the same together, as it comes first."""
    together: dict[object, list[Item]] = {}
    for number, item in enumerate(items):
        media = item.conversation.media
        together.setdefault(media[0].source if media else number, []).append(item)
    yield from together.values()


def _named(split: str, number: int, packing: Packing) -> str:
    return f"{split}-{number:06d}{packing.kind}"


def _beside(film: Path) -> Iterator[Path]:
    stem = film.with_suffix("") if film.is_file() else film
    beside = (stem.with_name(stem.name + suffix) for suffix in SUFFIXES if suffix != ".json")
    yield from (path for path in beside if path.is_file())


def _bytes_of_text(item: Item) -> int:
    talk = item.conversation
    return sum(len(turn.text) for turn in talk.turns) + sum(map(len, item.references))


def counted(plans: Sequence[Plan]) -> Mapping[str, int]:
    """How many items and films shards hold, a film in several counted once."""
    films = {path for plan in plans for path in plan.media}
    return {"items": sum(len(plan.items) for plan in plans), "films": len(films)}
