"""What shards hold, as files of lines, so that a run starts without the bytes of any film.

A shard of ours brings its index (`train-000000.tar.index.jsonl`). That of another is made once, by
walking its headers. Both are kept in a folder of this machine, under a name that follows from the
shard's address, size and version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from mmavlm.core.errors import ConfigError
from mmavlm.core.files import write_whole
from mmavlm.data.shards.fetching import LostShardError, Try, is_for_good
from mmavlm.data.shards.members import Sample, What
from mmavlm.data.shards.places import Options, Place, Told
from mmavlm.data.shards.reading import TAR, DamagedShardError, Member, samples, tar_members
from mmavlm.data.shards.tables import PARQUET, Columns, parquet_members, parquet_samples

FORMAT = "mmavlm shard 1"
SUFFIX = ".index.jsonl"
KINDS = (TAR, PARQUET)
COLUMNS = Columns()
HEADER_BYTES = 2**18  # read at a time from afar: a member's header, and texts beside it
CAPTION = "caption"

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Header:
    """What an index says of its shard: `lines` counts entries, `crc32` None is not known.

    `packed` says that these are whole items, and `classes` has those of their tasks. `plan` names
    what it was packed of, `frame_fps` the rate of films that are there as JPEGs.
    """

    shard: str
    bytes: int | None = None
    crc32: int | None = None
    lines: int = 0
    packed: bool = False
    plan: str = ""
    frame_fps: float | None = None
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    at: str = ""
    version: str | None = None
    columns: Sequence[str] = COLUMNS
    format: str = FORMAT


@dataclass(frozen=True)
class Shard:
    """A shard, what its file system says of it, and how its columns are called if it is a table."""

    place: Place
    told: Told
    columns: Columns = COLUMNS

    @cached_property
    def name(self) -> str:
        """The last part of where it lies."""
        return self.place.name

    @cached_property
    def folder(self) -> str:
        """The name of the folder it is unpacked to: another one, if the shard changes."""
        told = [self.place.address, self.told.size, self.told.version, *self.columns]
        key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', self.place.name)[:80]}-{key}"


class IndexFiles:
    """The indices of shards in a folder of this machine."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder = folder
        self.options = options

    def path(self, name: str) -> Path:
        """Where the index of a shard lies, by the name of its folder."""
        return self.folder / f"{name}.jsonl"

    def has(self, shard: Shard) -> bool:
        """Whether the index of a shard is there."""
        return self.path(shard.folder).is_file()

    def shard(self, name: str) -> tuple[Shard, Header]:
        """The shard that is unpacked to a folder of this name, and the header of its index.

        Raises:
            LostShardError: if there is no index of it.
        """
        try:
            header = _header(self.path(name))
        except (OSError, DamagedShardError):
            raise LostShardError(
                f"nothing in {self.folder} tells of the shard {name}; start the run anew"
            ) from None
        place = Place(header.at, self.options)
        told = Told(header.bytes, header.version)
        return Shard(place, told, Columns(*header.columns)), header

    def entries(self, shard: Shard) -> Iterator[Entry]:
        """What the index of a shard says, line by line; a line that cannot be read is a problem."""
        with self.path(shard.folder).open(encoding="utf-8") as file:
            next(file)
            for number, line in enumerate(file):
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield {"key": f"line {number}", "problem": f"its index is damaged: {error}"}

    def make(self, shard: Shard, one: Try) -> None:
        """Get the index of a shard, or make it.

        Raises:
            DamagedShardError: if shard or index are damaged, or of different versions.
            OSError: or whatever its file system raises, if it cannot be read.
        """
        header, lines = _brought(shard) or _made(shard)
        one.check()
        header = replace(
            header,
            at=shard.place.address,
            bytes=shard.told.size,
            version=shard.told.version,
            columns=list(shard.columns),
        )
        write_whole(self.path(shard.folder), _whole(header, lines))


def lines_of(header: Header, entries: Sequence[Entry]) -> bytes:
    """The content of an index."""
    return _whole(header, [json.dumps(entry, ensure_ascii=False) for entry in entries])


def _whole(header: Header, lines: Sequence[str]) -> bytes:
    first = json.dumps(asdict(replace(header, lines=len(lines))), ensure_ascii=False)
    return "".join(f"{line}\n" for line in (first, *lines)).encode()


def header_of(line: str) -> Header:
    """The header that the first line of an index holds.

    Raises:
        DamagedShardError: if it is none of ours.
    """
    try:
        values = json.loads(line)
        if values.get("format") != FORMAT:
            raise ValueError(f"its first line does not say {FORMAT!r}")
        header = Header(**values)
        _check(header)
        return header
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedShardError(f"its index is none of mmavlm's: {error}") from None


def _check(header: Header) -> None:
    """Refuse a header that says what none of ours does; raises ValueError."""
    counts = (header.bytes, header.crc32)
    fine = (
        all(type(count) is int or count is None for count in counts)
        and type(header.lines) is int
        and type(header.frame_fps) in (int, float, type(None))
        and isinstance(header.classes, dict)
        and all(type(c) is list and {*map(type, c)} <= {str} for c in header.classes.values())
        and all(type(column) is str for column in header.columns)
        and len(header.columns) == len(COLUMNS)
    )
    if not fine:
        raise ValueError("its first line says what none of mmavlm's does")


def members_of(shard: Shard, file: BinaryIO) -> Iterator[Member]:
    """The members of an opened shard; errors as of its kind."""
    if kind_of(shard.place) == TAR:
        return tar_members(file)
    return parquet_members(file, shard.columns)


def kind_of(place: Place) -> str:
    """Which kind of file a shard is, by its name.

    Raises:
        ConfigError: if it is of no kind that is read.
    """
    kind = next((kind for kind in KINDS if place.name.lower().endswith(kind)), None)
    if kind is None:
        raise ConfigError(
            f"{place} is no shard that is read; those are {' and '.join(KINDS)}, not compressed: "
            "films are already"
        )
    return kind


@lru_cache(maxsize=4096)
def _header(path: Path) -> Header:
    with path.open(encoding="utf-8") as file:
        return header_of(file.readline())


def _brought(shard: Shard) -> tuple[Header, list[str]] | None:
    """The header and lines of the index that lies beside a shard; None if none does."""
    place = shard.place.beside(SUFFIX)
    try:
        with place.open() as file:
            first, *lines = file.read().decode().removesuffix("\n").split("\n")
    except (FileNotFoundError, PermissionError) as error:
        if is_for_good(error):  # buckets that may not be listed refuse what is not there
            return None
        raise
    except ValueError as error:
        raise DamagedShardError(f"its index cannot be read: {error}") from None
    header = header_of(first)
    if header.lines != len(lines):
        raise DamagedShardError(f"its index has {len(lines)} lines of {header.lines}")
    if shard.told.size is not None and header.bytes != shard.told.size:
        raise DamagedShardError(
            f"it has {shard.told.size} bytes, and its index is of one with {header.bytes}"
        )
    return header, lines


def _made(shard: Shard) -> tuple[Header, list[str]]:
    """The header and lines of an index from the shard itself."""
    with shard.place.open(HEADER_BYTES) as file:
        if kind_of(shard.place) == TAR:
            found = samples(tar_members(file))
        else:
            found = parquet_samples(file, shard.columns)
    entries = [entry for sample in found for entry in entries_of(sample)]
    if any("item" in entry for entry in entries):
        raise DamagedShardError(
            f"mmavlm packed it, but its index, {shard.place.name}{SUFFIX}, does not lie beside it; "
            "copy that too"
        )
    lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    return Header(shard.place.name), lines


def entries_of(sample: Sample) -> Iterator[Entry]:
    """The lines of an index about a sample: an item of ours, or the values of a row, or why none.

    A `.json` is one row or a list of rows; a `.txt` is a caption.
    """
    if sample.problems:
        yield {"key": sample.key, "problem": "; ".join(sample.problems)}
        return
    try:
        rows = _rows(sample.texts)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        yield {"key": sample.key, "problem": f"what is said of it cannot be read: {error}"}
        return
    if "items" in sample.texts:
        yield from ({"item": row} for row in rows)
        return
    if (shown := sample.shown) is None:
        yield {"key": sample.key, "problem": "it shows no film"}
        return
    if not rows:
        yield {"key": sample.key, "problem": "nothing is said of it, in a .json or a .txt"}
    for number, row in enumerate(rows):
        key = sample.key if len(rows) == 1 else f"{sample.key}#{number}"
        yield {"key": key, "film": shown.path, "kind": shown.kind, "values": row}


def _rows(texts: Mapping[What, bytes]) -> list[dict[str, Any]]:
    """The rows that the texts of a sample hold; raises ValueError for others."""
    if "items" in texts:
        found = json.loads(texts["items"])["items"]
    else:
        caption = texts["txt"].decode().strip() if "txt" in texts else None
        found = json.loads(texts["json"]) if "json" in texts else ([] if caption is None else {})
        found = found if isinstance(found, list) else [found]
        if caption is not None and all(isinstance(row, dict) for row in found):
            found = [{CAPTION: caption, **row} for row in found]
    if not all(isinstance(row, dict) for row in found):
        raise ValueError("it holds no JSON objects")
    return found
