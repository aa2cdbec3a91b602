"""Whether the folders of extracted frames hold as many as the annotations say, and mending it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from mmavlm.core.errors import DataError, VideoError
from mmavlm.core.files import write_whole
from mmavlm.data.pictures import count_frames
from mmavlm.data.readers.annotations import SPLITS, read_object
from mmavlm.data.readers.entries import EntryFiles, counted_copy
from mmavlm.data.readers.json_files import read_json
from mmavlm.data.readers.rows import Row
from mmavlm.data.sources import inside


@runtime_checkable
class CountedReader(Protocol):
    """A reader whose entries say, under `count_key`, how many frames were extracted of a film."""

    files: EntryFiles
    count_key: str

    def film(self, key: str, row: Row) -> str:
        """The name of an entry's film."""


@dataclass(frozen=True)
class Counts:
    """What an annotation file says of its films' frames, beside what is there.

    `equal` counts films that agree; `differ` has film → (said, there), `absent` lists films without
    a folder of frames, `unusable` has entry → why nothing can be said of it.
    """

    path: Path
    equal: int
    differ: dict[str, tuple[int, int]]
    absent: list[str]
    unusable: dict[str, str]


class FrameCounts:
    """The frames of a set's films below `<root>/<folder>/frames`, each folder counted once."""

    def __init__(self, reader: CountedReader, root: Path) -> None:
        self.reader = reader
        self.root = root
        self.frames = root / reader.files.folder / "frames"
        self._there: dict[str, int | VideoError | None] = {}

    def annotations(self) -> list[Path]:
        """The annotation files of the set that exist, as they were published.

        Raises:
            DataError: if there is none.
        """
        found: dict[Path, None] = {}
        problems = []
        for split in SPLITS:
            try:
                found[self.reader.files.original(self.root, split)] = None
            except DataError as error:
                problems.append(error)
        if not found:
            raise problems[0]
        return list(found)

    def compare(self, path: Path) -> Counts:
        """What a file says of its films, beside what is there.

        Raises:
            DataError: if the file is missing or broken.
        """
        films: dict[str, tuple[int, int | None]] = {}  # said, there
        unusable = {}
        for key, row in read_object(path):
            try:
                row.check()
                film, said = self.reader.film(key, row), row.whole(self.reader.count_key)
                there = self._count(film)
            except DataError as error:
                unusable[key] = str(error)
                continue
            if film not in films or said != there:
                films[film] = said, there
        return Counts(
            path,
            equal=sum(said == there for said, there in films.values()),
            differ={f: (s, t) for f, (s, t) in films.items() if t is not None and t != s},
            absent=[film for film, (_, there) in films.items() if there is None],
            unusable=unusable,
        )

    def write(self, counts: Counts) -> Path | None:
        """Write the annotation with the counts that are there to its `counted_copy`.

        The published file stays as it is. Where nothing differs and no earlier copy has to be
        brought up to date, nothing is written.

        Raises:
            DataError: if the published file cannot be read.
            OSError: if the folder cannot be written.
        """
        copy = counted_copy(counts.path)
        if not counts.differ and not copy.exists():
            return None
        content = read_json(counts.path)
        for key, values in content.items():
            row = Row(counts.path, f"entry {key!r}", values)
            if key not in counts.unusable and (film := self.reader.film(key, row)) in counts.differ:
                values[self.reader.count_key] = counts.differ[film][1]
        write_whole(copy, json.dumps(content, ensure_ascii=False, indent=4).encode())
        return copy

    def _count(self, film: str) -> int | None:
        """How many frames there are of a film, None without a folder."""
        if film not in self._there:
            folder = inside(self.frames, film)
            try:
                self._there[film] = count_frames(folder) if folder.is_dir() else None
            except VideoError as error:
                self._there[film] = error
        there = self._there[film]
        if isinstance(there, VideoError):
            raise there
        return there
