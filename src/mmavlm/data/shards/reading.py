"""Shards as their members: WebDataset's tar files, read with care.

A tar is untrusted: of its members only plain files with harmless names are taken, their number and
bytes are bounded, and nothing of it is ever executed or unpickled.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mmavlm.core.errors import DataError
from mmavlm.data.shards.members import (
    MOST_MEMBERS,
    MOST_TEXT,
    Part,
    Sample,
    frame_name,
    part_of,
)

BLOCK = 512  # bytes: what a tar is made of
TAR = ".tar"
COPIED_AT_ONCE = 2**20
LATEST_S = 2**33  # a time of change beyond the year 2242 is none


class DamagedShardError(DataError):
    """A shard that is cut off, or not what its name says."""


@dataclass(frozen=True)
class Member:
    """One file in a shard; `part` None is left out, `problem` says why one is refused."""

    name: str
    size: int
    changed_s: float
    part: Part | None
    problem: str | None
    open: Callable[[], BinaryIO]


def tar_members(file: BinaryIO) -> Iterator[Member]:
    """The members of an uncompressed tar, read by seeking from one to the next.

    Raises:
        DamagedShardError: if it is cut off, damaged, or nothing of the kind.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            number = 0
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else all headers stay in memory
                number += 1
                if number > MOST_MEMBERS:
                    raise DamagedShardError(f"it holds more than {MOST_MEMBERS} members")
                if not info.isdir():
                    yield _member(tar, info)
            file.seek(tar.offset)
            if (end := file.read(BLOCK)) != bytes(BLOCK):
                what = "is cut off" if len(end) < BLOCK else "is damaged"
                raise DamagedShardError(f"it {what} at byte {tar.offset}")
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise DamagedShardError(f"it is no whole tar: {error}") from error


def judged(name: str) -> tuple[Part | None, str | None]:
    """What a member is by its name, and why it is refused, if it is."""
    try:
        return part_of(name), None
    except DataError as error:
        return None, str(error)


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    part, problem = judged(info.name)
    if info.issparse() or not info.isreg():
        part, problem = None, f"its member {info.name[:80]!r} is no plain file"

    def opened() -> BinaryIO:
        held = tar.extractfile(info)
        assert held is not None  # of a plain file
        return held  # type: ignore[return-value]  # which reads bytes

    changed_s = info.mtime if 0 <= info.mtime <= LATEST_S else 0
    return Member(info.name, info.size, changed_s, part, problem, opened)


def samples(members: Iterator[Member]) -> list[Sample]:
    """The samples of a shard in its order, with their texts; nothing else is read."""
    found: dict[str, Sample] = {}
    for member in members:
        if member.problem is not None:
            key = member.name[:80]
            found.setdefault(key, Sample(key)).problems.append(member.problem)
        if (part := member.part) is None:
            continue
        sample = found.setdefault(part.key, Sample(part.key))
        sample.parts.setdefault(part.path, part)
        if part.is_text:
            if member.size > MOST_TEXT:
                sample.problems.append(f"its {part.ending} has {member.size} bytes")
            else:
                with _whole(member) as text:
                    sample.texts[part.what] = text.read(MOST_TEXT + 1)
    return list(found.values())


def unpack(members: Iterator[Member], folder: Path, most_bytes: int) -> int:
    """Write what members show into a folder, frames numbered as readers look for them.

    Gives the bytes written. What a sample has twice is taken once, as it came first.

    Raises:
        DamagedShardError: if they hold more bytes than they may, or less than they say.
    """
    written = 0
    frames: dict[str, list[tuple[int, Path]]] = {}
    for member in members:
        part = member.part
        if part is None or part.is_text:
            continue
        written += member.size
        if written > most_bytes:
            raise DamagedShardError(f"it holds more than {most_bytes} bytes of films")
        path = folder / part.path
        if part.what == "frame":
            path = path / f"{part.number:09d}.came"
            frames.setdefault(part.path, []).append((part.number, path))
        _write(member, path)
    for at, numbered in frames.items():
        for place, (_, path) in enumerate(sorted(numbered)):
            os.replace(path, folder / at / frame_name(place))
    return written


@contextmanager
def _whole(member: Member) -> Iterator[BinaryIO]:
    """A member to read, which may end before its end."""
    try:
        with member.open() as source:
            yield source
    except tarfile.TarError as error:
        raise DamagedShardError(f"it is cut off within {member.name!r}: {error}") from error


def _write(member: Member, path: Path) -> None:
    """Write one member, with its time of change, so that it is the same film each time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _whole(member) as source, path.open("xb") as file:
            shutil.copyfileobj(source, file, COPIED_AT_ONCE)
            size = file.tell()
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise DamagedShardError(f"its member {member.name!r} lies where another one does") from None
    if size != member.size:
        raise DamagedShardError(f"its member {member.name!r} has {size} bytes of {member.size}")
    os.utime(path, (member.changed_s, member.changed_s))
