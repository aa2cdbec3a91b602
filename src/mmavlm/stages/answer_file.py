"""What a process answers in a test, on disk batch by batch: a kill loses the last batch at most."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mmavlm.core.keys import string_key
from mmavlm.metrics import Prediction
from mmavlm.metrics.prediction_rows import parse_row, row_line

log = logging.getLogger(__name__)

FORMAT = 1
NAMED = 10  # of the settings that differ
_BATCH = b'{"batch": '  # how the line behind the rows of a batch begins


class Place(NamedTuple):
    """Where a batch is in a file: its rows, and the line behind them."""

    batch: int  # how manieth its process had
    first: int
    size: int
    told: int  # where that line begins


class Told(NamedTuple):
    """A batch as it was answered: its rows, its losses, and what callbacks keep beside.

    A loss is the name of a set, the loss of its rows, and how many there are.
    """

    rows: list[Prediction]
    losses: list[tuple[str, float, int]]
    beside: dict[str, Any]


class AnswerFile:
    """Rows as those of predictions.jsonl, and behind those of each batch a line that closes it.

    The first line says what was answered by which model. Of a row are held in memory the item's
    key, where the row begins, and how long it is.
    """

    def __init__(self, file: BinaryIO, path: Path | None = None) -> None:
        self.path = path
        self.places: list[Place] = []
        self.keys, self.starts, self.lengths = array("q"), array("q"), array("q")
        self._file = file

    @classmethod
    def temporary(cls) -> AnswerFile:
        """A file without a name, which is gone with its process."""
        found = cls(tempfile.TemporaryFile())  # noqa: SIM115  # it stays open as long as this
        found._write([b"{}\n"])
        return found

    @classmethod
    def begun(cls, path: Path, header: Mapping[str, Any]) -> AnswerFile:
        """A file that goes on with what is there, if that is of the same header, else a new one.

        What differs is told, and what a kill has torn off is left out, which is told as well.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        header = json.loads(json.dumps({"format": FORMAT, **header}))
        before = _header(path)
        if before is not None and (other := _differing(before, header)):
            log.warning(
                "%s holds answers of a test that was not finished, which are not taken, since "
                "these differ: %s", path, ", ".join(other),
            )  # fmt: skip
        found = cls(path.open("r+b" if before == header else "w+b"), path)
        if before == header:
            found._take_up()
        else:
            found._write([json.dumps(header).encode() + b"\n"])
        return found

    @classmethod
    def read(cls, path: Path) -> AnswerFile:
        """The file of another process that has finished its test."""
        found = cls(path.open("rb"), path)
        found._scan(len(found._file.readline()), also_again=True)
        return found

    def append(self, batch: int, told: Told, *, again: bool = False) -> None:
        """Add the answers to a batch; with `again` a test that goes on asks them once more."""
        lines = [row_line(row).encode() for row in told.rows]
        closing: dict[str, Any] = {
            "batch": batch,
            "rows": len(lines),
            "crc32": zlib.crc32(b"".join(lines)),
            "again": again,
            "items": [row.item_id for row in told.rows],
            "losses": told.losses,
            "beside": told.beside,
        }
        start = self._file.seek(0, os.SEEK_END)
        self._add(batch, closing["items"], start, list(map(len, lines)))
        self._write([*lines, json.dumps(closing).encode() + b"\n"])

    def told(self, place: Place) -> Told:
        """A batch as it was answered."""
        self._file.seek(place.told)
        closing = json.loads(self._file.readline())
        which = range(place.first, place.first + place.size)
        losses = [(name, loss, rows) for name, loss, rows in closing["losses"]]
        return Told([parse_row(line.decode()) for line in self.lines(which)], losses,
                    closing["beside"])  # fmt: skip

    def lines(self, which: Sequence[int]) -> Iterator[bytes]:
        """Some of the rows, as they stand in the file."""
        file = self._file.fileno()
        for row in which:
            yield os.pread(file, self.lengths[row], self.starts[row])

    def size(self) -> int:
        """Bytes that are there, also for who reads the disk."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def bytes_at(self, start: int, count: int) -> bytes:
        """Some of the bytes."""
        return os.pread(self._file.fileno(), count, start)

    def _write(self, lines: Sequence[bytes]) -> None:
        self._file.writelines(lines)
        self._file.flush()

    def _take_up(self) -> None:
        end = self._scan(len(self._file.readline()))
        size = self._file.seek(0, os.SEEK_END)
        if end < size:
            log.warning(
                "%s ends within a batch, and its last %d bytes are left out", self.path, size - end
            )
            self._file.truncate(end)
        log.info("%s: the test goes on behind %d answers", self.path, len(self.keys))

    def _scan(self, end: int, *, also_again: bool = False) -> int:
        """Find the batches from `end` on, maybe also those to be asked again; where they end."""
        self._file.seek(end)
        rows: list[int] = []
        crc, at = 0, end
        for line in self._file:
            at += len(line)
            if not line.startswith(_BATCH):
                rows.append(len(line))
                crc = zlib.crc32(line, crc)
                continue
            closing = _parsed(line)
            if closing is None or (closing["rows"], closing["crc32"]) != (len(rows), crc):
                break
            if also_again or not closing["again"]:
                self._add(closing["batch"], closing["items"], end, rows)
            end, rows, crc = at, [], 0
        return end

    def _add(self, batch: int, items: Sequence[str], start: int, lengths: Sequence[int]) -> None:
        first = len(self.keys)
        for item, length in zip(items, lengths, strict=True):
            self.keys.append(string_key(item))
            self.starts.append(start)
            self.lengths.append(length)
            start += length
        self.places.append(Place(batch, first, len(lengths), start))


def _parsed(line: bytes) -> dict[str, Any] | None:
    """What the line that closes a batch says; None if it is torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return found


def _header(path: Path) -> dict[str, Any] | None:
    """What the first line of a file says; None where there is none, or no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        found = _parsed(file.readline())
    return found if isinstance(found, dict) else None


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    more = [f"and {len(keys) - NAMED} more"] if len(keys) > NAMED else []
    return keys[:NAMED] + more
