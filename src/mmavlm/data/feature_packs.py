"""Many entries of the feature cache in a few large files, found by an index and read by offset.

A pack holds the files of its entries as they are, so each has the checksums that it had. Beside it
lies its index; a pack without one is not finished and counts for nothing. Of an entry that several
packs have, that of the newest counts.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from mmavlm.core.checksums import KEY, damaged_tensors, noted
from mmavlm.core.files import written_whole
from mmavlm.data.cache_keys import Numbers, key_numbers
from mmavlm.data.encoder_cards import write_whole
from mmavlm.data.stored_tensors import stored_in

FOLDER = "packs"
FORMAT = "mmavlm feature pack 1"
PACK, INDEX = ".pack", ".index"
ALIGNED = 64  # bytes; tensors in the middle of a pack begin as those of a file
PACK_BYTES = 2**30

log = logging.getLogger(__name__)


class Part(NamedTuple):
    """Where an entry lies: in which pack, from which byte on, how many; and when it was made."""

    pack: Path
    offset: int
    size: int
    made_ns: int


class EntryFile(NamedTuple):
    """The file of an entry: its key, its bytes, and when it was made."""

    key: str
    content: bytes
    made_ns: int


class Packs:
    """The packs of an encoder's folder; what others add or remove is noticed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._seen_ns = -1
        self._paths: list[Path] = []
        self._numbers: Numbers = np.empty(0, np.uint64)
        self._parts = np.empty((0, 4), np.int64)  # pack, offset, size, time

    @property
    def numbers(self) -> Numbers:
        """The numbers of the entries that are there, ascending."""
        self._load()
        return self._numbers

    @property
    def paths(self) -> list[Path]:
        """The packs, the oldest first."""
        self._load()
        return list(self._paths)

    def find(self, key: str) -> NDArray[np.uint8] | None:
        """The bytes of an entry's file, mapped; None if no pack has it.

        Raises:
            ValueError: if its pack is shorter than the index says, or gone.
        """
        part = self.part(key)
        if part is None:
            return None
        try:
            content = _mapped(part.pack)
        except (OSError, ValueError) as error:
            raise ValueError(f"{part.pack} cannot be read ({error})") from error
        if part.offset + part.size > len(content):
            raise ValueError(f"{part.pack} is shorter than its index says")
        return content[part.offset : part.offset + part.size]

    def part(self, key: str) -> Part | None:
        """Where an entry lies, None if it is in no pack."""
        self._load()
        (number,) = key_numbers([key])
        place = int(np.searchsorted(self._numbers, number, side="right")) - 1
        if place < 0 or self._numbers[place] != number:
            return None
        pack, *where = self._parts[place].tolist()
        return Part(self._paths[pack], *where)

    def parts_of(self, pack: Path) -> tuple[list[str], NDArray[np.int64]]:
        """The keys of the entries of a pack, and their offsets, sizes and times (n,3).

        Raises:
            ValueError: if its index is damaged.
        """
        stored = stored_in(pack.with_suffix(INDEX))
        told = dict(stored.told)
        if told.get("format") != FORMAT or damaged_tensors(stored.tensors, told.get(KEY, "")):
            raise ValueError("its checksum is another")
        digits = stored.tensors["keys"].numpy().astype(np.uint32).tobytes().decode("utf-32-le")
        width = stored.tensors["keys"].shape[1]
        keys = [digits[at : at + width] for at in range(0, len(digits), width)]
        return keys, stored.tensors["parts"].numpy()

    def write(self, files: Iterable[EntryFile]) -> Path:
        """Write a pack of entries; it is there whole or not at all.

        Raises:
            OSError: if the folder cannot be written, or its disk is full.
        """
        # a name that sorts behind those of before
        pack = self.folder / f"{time.time_ns():016x}_{uuid.uuid4().hex[:8]}{PACK}"
        keys, parts, at = [], [], 0
        with written_whole(pack) as partial, partial.open("wb") as file:
            for key, content, made_ns in files:
                file.write(content)
                file.write(bytes(-len(content) % ALIGNED))
                keys.append(key)
                parts.append((at, len(content), made_ns))
                at = file.tell()
        letters = [[ord(letter) for letter in key] for key in keys]
        tensors = {
            "keys": torch.tensor(letters, dtype=torch.int32),
            "parts": torch.tensor(parts, dtype=torch.int64).view(-1, 3),
        }
        told = {"format": FORMAT, KEY: noted(tensors)}
        write_whole(pack.with_suffix(INDEX), save(tensors, told))
        return pack

    def remove(self, pack: Path) -> None:
        """Remove a pack; who has it mapped goes on reading it."""
        pack.with_suffix(INDEX).unlink(missing_ok=True)
        pack.unlink(missing_ok=True)

    def _load(self) -> None:
        try:
            changed_ns = os.stat(self.folder).st_mtime_ns
        except OSError:
            changed_ns = 0
        if changed_ns == self._seen_ns:
            return
        self._seen_ns = changed_ns
        numbers, parts, self._paths = [], [], []
        for path, of_pack, where in self._indices():
            numbers.append(key_numbers(of_pack))
            number = np.full(len(where), len(self._paths), np.int64)
            parts.append(np.column_stack([number, where]))
            self._paths.append(path)
        everything = np.concatenate([np.empty(0, np.uint64), *numbers])
        order = np.argsort(everything, kind="stable")  # the newest pack of an entry comes last
        self._numbers = everything[order]
        self._parts = np.concatenate([np.empty((0, 4), np.int64), *parts])[order]

    def _indices(self) -> Iterator[tuple[Path, Sequence[str], NDArray[np.int64]]]:
        for index in sorted(self.folder.glob(f"*{INDEX}")) if self._seen_ns else ():
            pack = index.with_suffix(PACK)
            try:
                yield pack, *self.parts_of(pack)
            except (ValueError, KeyError, FileNotFoundError) as error:
                log.warning("%s is damaged (%s); its entries count as missing", index, error)


@lru_cache(maxsize=64)
def _mapped(path: Path) -> NDArray[np.uint8]:
    # copied on write, since torch wants to be able to write
    return np.memmap(path, np.uint8, mode="c")
