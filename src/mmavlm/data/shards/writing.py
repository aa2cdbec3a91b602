"""Shards as files: written here, then put where they are to lie, and their index behind them."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mmavlm.core.errors import ConfigError, DataError, VideoError
from mmavlm.core.files import written_whole
from mmavlm.core.temporary import working_folder
from mmavlm.data.shards.fetching import Patience
from mmavlm.data.shards.index import SUFFIX, Header, header_of, lines_of
from mmavlm.data.shards.members import FRAMES, part_of
from mmavlm.data.shards.packed_items import plain_item
from mmavlm.data.shards.packing import Plan
from mmavlm.data.shards.places import Place
from mmavlm.data.shards.reading import TAR
from mmavlm.data.shards.store import file_crc32
from mmavlm.data.shards.tables import BYTES, ITEMS, NAME

PATIENCE = Patience(tries=5, seconds=3600)
GROUP_BYTES = 32 * 2**20  # of a Parquet file that are written together


class File(NamedTuple):
    """A member to be: its name, and the file it is a copy of or the text it has."""

    name: str
    source: Path | str


class Outcome(NamedTuple):
    """What became of a shard: its bytes (0: it was there), and films that cannot be packed."""

    name: str
    size: int
    broken: Mapping[str, str]


@dataclass(frozen=True)
class Job:
    """A shard to write to a place, with the classes of its set."""

    plan: Plan
    place: Place
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def write_shard(job: Job) -> Outcome:
    """Write a shard, and then its index, unless both are there.

    Raises:
        ConfigError: if another shard lies there.
        LostShardError: if it cannot be written where it is to lie.
        OSError: if a disk of this machine is full.
    """
    plan, place = job.plan, job.place
    if _is_there(job):
        return Outcome(plan.name, 0, {})
    with working_folder("pack") as folder:
        frames, broken = _extracted(plan, folder)
        kept = _without(plan, broken)
        files = list(_files(kept, frames))
        path = folder / plan.name
        _written(path, files)
        packing = plan.packing
        has_frames = any(name.endswith(FRAMES) for name in kept.names.values())
        header = Header(
            shard=plan.name,
            bytes=path.stat().st_size,
            crc32=file_crc32(path),
            packed=True,
            plan=plan.mark,
            frame_fps=packing.frame_fps if has_frames else None,
            classes=job.classes,
        )
        entries = [{"item": plain_item(item, kept.names)} for item in kept.items]
        index = folder / "index"
        index.write_bytes(lines_of(header, entries))
        put(path, place)
        put(index, place.beside(SUFFIX))
        return Outcome(plan.name, path.stat().st_size, broken)


def put(path: Path, place: Place) -> None:
    """Copy a file to a place, where it appears whole.

    Raises:
        LostShardError: naming the place, if it cannot be written after all tries.
    """
    if place.is_local:
        with written_whole(Path(place.system()[1])) as partial:
            shutil.copyfile(path, partial)
        return

    def work(_: object) -> None:
        system, at = place.system()
        system.makedirs(at.rpartition("/")[0], exist_ok=True)
        system.put_file(str(path), at)
        size = place.told().size
        if size is not None and size != path.stat().st_size:
            raise OSError(f"{size} bytes are there of {path.stat().st_size}")

    PATIENCE.try_to("written", place, work)


def _is_there(job: Job) -> bool:
    """Whether a shard is complete, with its index, which is written last."""
    index = job.place.beside(SUFFIX)

    def work(_: object) -> str | None:
        try:
            with index.open() as file:
                return file.readline().decode()
        except FileNotFoundError:
            return None

    line = PATIENCE.try_to("looked for", index, work)
    if line is None:
        return False
    if header_of(line).plan != job.plan.mark:
        raise ConfigError(
            f"{job.place} is there, of other items, films or settings; give another out, or remove "
            "the shards there"
        )
    return True


def _files(plan: Plan, frames: Mapping[Path, Path]) -> Iterator[File]:
    """The members of a shard, what is said of a film behind it."""
    of_key: dict[str, list[File]] = {}
    for path, name in plan.names.items():
        key = name.partition(".")[0]
        of_key.setdefault(key, []).extend(_copies(frames.get(path, path), name))
    for name, text in plan.texts():
        of_key.setdefault(name.partition(".")[0], []).append(File(name, text))
    for files in of_key.values():
        yield from files


def _copies(path: Path, name: str) -> Iterator[File]:
    if not name.endswith(FRAMES):
        yield File(name, path)
        return
    for frame in sorted(path.iterdir()):
        member = f"{name.removesuffix(FRAMES)}.{frame.name.lower()}"
        part = part_of(member)
        if part is not None and part.what == "frame":
            yield File(member, frame)


def _extracted(plan: Plan, folder: Path) -> tuple[dict[Path, Path], dict[str, str]]:
    """Film → folder of its JPEGs, where films become JPEGs; and name → reason of broken ones."""
    from mmavlm.data.extraction import Extraction, extract

    found: dict[Path, Path] = {}
    broken: dict[str, str] = {}
    if plan.packing.frames_fps is None:
        return found, broken
    settings = Extraction(plan.packing.frames_fps, plan.packing.short_side)
    for path, name in plan.names.items():
        if name.endswith(FRAMES) and not path.is_dir():
            try:
                extract(path, folder / "frames" / name, settings)
                found[path] = folder / "frames" / name
            except VideoError as error:
                broken[plan.media[path].medium_id] = str(error)
    return found, broken


def _without(plan: Plan, broken: Mapping[str, str]) -> Plan:
    """A plan without the items that show what is broken.

    Raises:
        DataError: if none is left.
    """
    kept = tuple(
        item
        for item in plan.items
        if broken.keys().isdisjoint(medium.medium_id for medium in item.conversation.media)
    )
    if not kept:
        raise DataError(f"all films of {plan.name} are broken: {next(iter(broken.values()))}")
    return Plan(plan.name, kept, plan.packing)


class _Writer(Protocol):
    def add(self, file: File) -> None:
        """Write a member."""


def _written(path: Path, files: Sequence[File]) -> None:
    opened = _tar if path.name.endswith(TAR) else _table
    with opened(path) as writer:
        for file in files:
            writer.add(file)


@contextmanager
def _tar(path: Path) -> Iterator[_Writer]:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:

        class Writer:
            def add(self, file: File) -> None:
                info = tarfile.TarInfo(file.name)
                if isinstance(file.source, str):
                    content = file.source.encode()
                    info.size = len(content)
                    tar.addfile(info, BytesIO(content))
                    return
                stat = file.source.stat()
                info.size, info.mtime = stat.st_size, int(stat.st_mtime)
                with file.source.open("rb") as source:
                    tar.addfile(info, source)

        yield Writer()


@contextmanager
def _table(path: Path) -> Iterator[_Writer]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(NAME, pa.string()), (BYTES, pa.large_binary()), (ITEMS, pa.string())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as table:
        rows: list[dict[str, Any]] = []

        class Writer:
            held = 0

            def add(self, file: File) -> None:
                text = file.source if isinstance(file.source, str) else None
                content = file.source.read_bytes() if isinstance(file.source, Path) else None
                rows.append({NAME: file.name, BYTES: content, ITEMS: text})
                self.held += len(content or b"")
                if self.held >= GROUP_BYTES:
                    self.flush()

            def flush(self) -> None:
                table.write_table(pa.Table.from_pylist(rows, schema))
                rows.clear()
                self.held = 0

        writer = Writer()
        yield writer
        if rows:
            writer.flush()
