"""Items that are many, kept as a table from run to run and for all processes.

What a table was made of is noted with it: the reader and its settings, the code that read, each
annotation file (size, times of change, SHA-256) and each folder in which films were looked for (its
time of change). A table is taken as it is while all of these are the same, and made anew otherwise.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmavlm.core.errors import DataError
from mmavlm.core.files import PARTIAL, file_sha256, one_at_a_time, write_whole
from mmavlm.core.items import Item, Reader
from mmavlm.data.films import films_of
from mmavlm.data.looked_at import Seen, Stamp, look_at, looking, stamp
from mmavlm.data.readers.entries import Found, SkippingReader
from mmavlm.data.readers.tabled import Reading, TabledReader, write_reading

if TYPE_CHECKING:
    from mmavlm.data.item_rows import Common
    from mmavlm.data.item_table import ItemTable
    from mmavlm.data.item_writer import ItemWriter

log = logging.getLogger(__name__)

FORMAT = 2  # counts up when tables are laid out otherwise
FOLDER, NOTED = "items", "noted.json"
MANY_ITEMS = 20_000  # fewer are read in a second
MANY_BYTES = 1 << 22  # of annotation files: about as many items
LISTED = 100  # entries that were left out, with their reasons
MAX_NOTED_BYTES = 1 << 28
DAMAGE = (OSError, ValueError, KeyError, TypeError)


def items_of(
    reader: Reader, root: Path, split: str, task: str | Sequence[str] | None, index: Path | None
) -> Sequence[Item]:
    """The items of a split; those that are many are kept below `index` (None: nowhere).

    Readers of packages elsewhere may open files that nobody notes, so their items are kept only if
    they say so by an attribute `kept`.

    Raises:
        ConfigError: as of the reader.
        DataError: as of the reader.
    """
    ours = type(reader).__module__.startswith("mmavlm.")
    if index is None or not isinstance(reader, SkippingReader) or not getattr(reader, "kept", ours):
        return reader(root, split, task)
    try:
        own = getattr(reader, "kept_as", None)  # of one whose items no file of a disk tells
        told = [_described(reader) if own is None else own(split), str(root), split, task]
    except TypeError:  # a setting that cannot be told from another
        return reader(root, split, task)
    kept = _Kept(reader, root, split, task, index / FOLDER / _digest(told))
    return kept.found() or kept.made()


class _Kept:
    """The table of one split, in a folder of its own."""

    def __init__(
        self,
        reader: SkippingReader,
        root: Path,
        split: str,
        task: str | Sequence[str] | None,
        folder: Path,
    ) -> None:
        self.reader = reader
        self.root = root
        self.split = split
        self.task = task
        self.folder = folder

    def found(self) -> Sequence[Item] | None:
        """The table that is there, None if there is none, or it is of other files."""
        noted = self.folder / NOTED
        try:
            if noted.stat().st_size > MAX_NOTED_BYTES:
                raise ValueError("its note is too large")
            told = json.loads(noted.read_bytes())
            if (told["format"], told["code"]) != (FORMAT, _code(type(self.reader))):
                return None
            if not all(_same(Path(path), was, sha256) for path, was, sha256 in told["seen"]):
                return None
            for path, _, sha256 in told["seen"]:
                if sha256 is not None:
                    look_at(Path(path))
            table = _open(self.folder)
            skipped = dict(told["skipped"])
            notes = tuple((int(level), str(note)) for level, note in told["notes"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except DAMAGE as error:
            log.warning("%s, a table of items, is damaged (%s); made anew", self.folder, error)
            return None
        found = Found(table, skipped, notes, int(told["left_out"]))
        return self.reader.accepted(found, self.split)

    def made(self) -> Sequence[Item]:
        """The items, as a table that is kept if they are many."""
        if (reading := self._reading()) is not None and not _is_large(reading):
            return self.reader(self.root, self.split, self.task)
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with one_at_a_time(self.folder.with_suffix(".lock")):
                return self.found() or self._made_anew()
        except OSError as error:
            log.info("no items are kept in %s: %s", self.folder, error)
            return self.reader(self.root, self.split, self.task)

    def _reading(self) -> Reading | None:
        if not isinstance(self.reader, TabledReader):
            return None
        return self.reader.reading(self.root, self.split, self.task)

    def _made_anew(self) -> Sequence[Item]:
        for left in self.folder.parent.glob(f".{self.folder.name}.*{PARTIAL}"):
            shutil.rmtree(left, ignore_errors=True)  # of a process that was killed
        partial = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex}{PARTIAL}")
        partial.mkdir()
        log.info("reading the %s split below %s for the first time", self.split, self.root)
        begin = time.monotonic()
        try:
            with looking() as seen, self._writer(partial) as writer:
                found = self._written(writer)
            if not writer.finished:
                return self.reader.accepted(found, self.split)
            if refusal := self.reader.refusal(found._replace(items=_open(partial))):
                raise DataError(refusal)
            write_whole(partial / NOTED, self._noted(found, seen))
            shutil.rmtree(self.folder, ignore_errors=True)
            os.replace(partial, self.folder)
            taken_s = time.monotonic() - begin
            log.info("%d items are kept in %s (%.1f s)", len(writer), self.folder, taken_s)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return self.reader.accepted(found._replace(items=_open(self.folder)), self.split)

    def _writer(self, partial: Path) -> ItemWriter:
        from mmavlm.data.item_writer import ItemWriter

        return ItemWriter(partial, self._common(), look=films_of(self.reader).at_hand)

    def _common(self) -> Common:
        """What plain items have in common."""
        from mmavlm.data.item_rows import Common

        reading = self._reading()
        plain = {} if reading is None else {"prompt": reading.prompt, "task": reading.task}
        return Common(str(self.root), **plain)

    def _written(self, writer: ItemWriter) -> Found:
        """What the reader finds; the items are written if they are many and a table can hold them.

        Otherwise nothing is.
        """
        if (reading := self._reading()) is not None:
            return write_reading(reading, writer)
        found = self.reader.read(self.root, self.split, self.task)
        if len(found.items) >= MANY_ITEMS and not self.reader.refusal(found):
            try:
                writer.add_items(found.items)
            except TypeError as error:
                log.info("the items below %s are not kept: %s", self.root, error)
            else:
                writer.finish()
        return found

    def _noted(self, found: Found, seen: Seen) -> bytes:
        """What the table was made of, and what is to be said of it."""
        told = {
            "format": FORMAT,
            "code": _code(type(self.reader)),
            "seen": [[str(path), was, _sha256(path, was)] for path, was in sorted(seen.items())],
            "skipped": list(found.skipped.items())[:LISTED],
            "left_out": len(found.skipped),
            "notes": found.notes,
        }
        return json.dumps(told, indent=1).encode()


def _is_large(reading: Reading) -> bool:
    """Whether its items are many, by its annotation files, of which the first entry is read."""
    if reading.many is not None:
        return reading.many
    with looking() as seen:
        next(reading.entries(), None)
    return sum(path.stat().st_size for path in seen if path.is_file()) >= MANY_BYTES


def _open(folder: Path) -> ItemTable:
    from mmavlm.data.item_table import ItemTable

    return ItemTable(folder)


def _same(path: Path, was: Stamp, sha256: str | None) -> bool:
    """Whether a file or folder is as it was; a file is read only where its times have changed."""
    now = stamp(path)
    return now == was or (
        sha256 is not None and now[:1] == was[:1] and _sha256(path, now) == sha256
    )


def _sha256(path: Path, was: Stamp) -> str | None:
    """The digest of a file, None of a folder, and of a file that is not as it was when read."""
    if len(was) < 2:
        return None
    found = file_sha256(path)
    return found if stamp(path) == was else None


def _described(value: Any) -> Any:
    """Plain values that are equal for equal settings of a reader.

    Raises:
        TypeError: if one of them cannot be told from another.
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_described(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, dict):
        return {str(key): _described(one) for key, one in value.items()}
    if is_dataclass(value):
        own = {field.name: getattr(value, field.name) for field in fields(value)}
    elif not callable(value) or isinstance(value, SkippingReader):
        own = vars(value)
    else:
        raise TypeError(f"{value!r} is no plain setting")
    return [f"{type(value).__module__}.{type(value).__qualname__}", _described(own)]


def _digest(told: Any) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


@lru_cache
def _code(reader: type) -> str:
    """A digest of the code that makes items: a change of it makes other tables."""
    package = Path(__file__).parents[1]
    files = [*sorted((package / "data").rglob("*.py")), *sorted((package / "core").glob("*.py"))]
    modules = (getattr(sys.modules[cls.__module__], "__file__", None) for cls in reader.__mro__)
    own = sorted({Path(name) for name in modules if name is not None})
    content = (path.read_bytes() for path in [*files, *own])
    return _digest([hashlib.sha256(some).hexdigest() for some in content])
