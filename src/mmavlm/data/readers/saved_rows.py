"""Rows that Hugging Face `datasets` saved: folders of `save_to_disk`, and Parquet files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import Unpack

from mmavlm.core.errors import DataError, first_line
from mmavlm.core.options import Style
from mmavlm.data.looked_at import look_at
from mmavlm.data.readers.annotations import SPLIT_NAMES, SplitFiles, SplitNames, known_split
from mmavlm.data.readers.own import LAYOUT, OwnReader
from mmavlm.data.readers.rows import Row
from mmavlm.data.sources import inside

if TYPE_CHECKING:
    from pyarrow import RecordBatch

STATE = "state.json"  # which names the Arrow files of a folder that `save_to_disk` wrote
PARQUET = ".parquet"
FILM = "video"
AT_ONCE = 256  # rows of a Parquet file


class SavedRowsReader(OwnReader):
    """Rows as of `OwnReader`, in the tables that Hugging Face `datasets` keeps on a disk.

    A split is the folder of its name below `<root>/<folder>` that `save_to_disk` wrote, or the
    Parquet files `<split>.parquet`, `<split>-*.parquet`, there or in `data` or `<split>`; a split
    may have any of its usual names, such as `validation`. `train`, `val` and `test` name another
    folder, file or pattern instead. `video` is a path, below the root or absolute but below it, or
    a `Video` of which the path is kept.

    Raises:
        ConfigError: as `OwnReader`.
    """

    def __init__(
        self,
        folder: str = ".",
        closed: str | Sequence[str] = (),
        options: Style = "letters",
        keys: Mapping[str, str] | None = None,
        **named: Unpack[SplitNames],
    ) -> None:
        super().__init__(folder, closed, options, keys, **named)
        self.files = SavedSplits(folder, LAYOUT, keys=keys, **named)


class SavedSplits(SplitFiles):
    """The tables of each split of a set below its root."""

    def path(self, root: Path, split: str) -> Path:
        """The table of a split, or the first of its files.

        Raises:
            DataError: if there is none, or there are two that may be meant.
        """
        return self._files(root, split)[0]

    def _all(self, root: Path, split: str) -> Iterator[Row]:
        film = next((theirs for theirs, ours in self.keys.items() if ours == FILM), FILM)
        numbers = count()
        for path in self._files(root, split):
            for batch in _batches(path):
                values = _plain(path, batch, film, root).to_pylist()
                yield from (Row(path, f"row {next(numbers)}", row) for row in values)

    def _files(self, root: Path, split: str) -> list[Path]:
        folder = Path(root) / self.folder
        if name := self.named[known_split(split)]:
            found = [_tables(path) for path in sorted(folder.glob(name))]
            files = [file for tables in found for file in tables]
            if not files:
                raise _missing(folder, name)
            return files
        names = [name for name, of in SPLIT_NAMES.items() if of == split]
        choices = [files for name in names for files in _of_split(folder, name) if files]
        if len(choices) > 1:
            raise DataError(
                f"{folder} holds both {choices[0][0]} and {choices[1][0]}; say which with "
                f"data.reader.{split}="
            )
        if not choices:
            raise _missing(folder, split)
        return choices[0]


def _of_split(folder: Path, name: str) -> Iterator[list[Path]]:
    """The tables of each kind that a folder may have under a split's name."""
    look_at(folder / name / STATE)
    yield _tables(folder / name)
    for place in (folder, folder / "data"):
        yield sorted([*place.glob(f"{name}{PARQUET}"), *place.glob(f"{name}-*{PARQUET}")])


def _tables(path: Path) -> list[Path]:
    """The Arrow or Parquet files of a folder, or the Parquet file itself."""
    if path.suffix == PARQUET and path.is_file():
        return [path]
    if not (path / STATE).is_file():
        return sorted(path.glob(f"*{PARQUET}"))
    try:
        told = json.loads(look_at(path / STATE).read_text(encoding="utf-8"))
        return [inside(path, file["filename"]) for file in told["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path / STATE} cannot be read ({first_line(error)}); save the set again by "
            "save_to_disk"
        ) from error


def _missing(folder: Path, name: str) -> DataError:
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else ""
    return DataError(
        f"{folder} holds no rows named {name}, but {there or 'nothing'}; expected a folder that "
        f"save_to_disk wrote ({name}/{STATE}), or {name}.parquet. Say which with "
        "data.reader.train, data.reader.val and data.reader.test"
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read ({first_line(error)}); save the set again"
        ) from error


def _batches(path: Path) -> Iterator[RecordBatch]:
    """The rows of a file, many at once."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    look_at(path)
    with _readable(path):
        if path.suffix == PARQUET:
            with ParquetFile(path) as file:
                yield from file.iter_batches(AT_ONCE)
            return
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            yield from stream


def _plain(path: Path, batch: RecordBatch, film: str, root: Path) -> RecordBatch:
    """Rows without bytes: of media the paths, and that of the film as it is below the root.

    Raises:
        DataError: if films lie in the rows themselves.
    """
    import pyarrow as pa
    from pyarrow import compute, types

    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if types.is_struct(column.type) and {f.name for f in column.type} == {"bytes", "path"}:
            if name == film and column.field("bytes").null_count < len(column):
                raise DataError(
                    f"{path} holds films as bytes in its column {name!r}; save that column as "
                    "texts, the paths of files (data=shards reads films that lie in Parquet files)"
                )
            column = column.field("path")
        if types.is_binary(column.type) or types.is_large_binary(column.type):
            continue
        if name == film and types.is_string(column.type):
            below = "^" + re.escape(str(Path(root).absolute())) + "/+"
            column = compute.replace_substring_regex(column, pattern=below, replacement="")
        columns[name] = column
    return pa.RecordBatch.from_pydict(columns)
