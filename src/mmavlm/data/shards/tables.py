"""Shards that are Parquet files: rows with the bytes of a film, and columns about it.

Files of ours hold a member a row (`name`, `bytes`, `items`), others a sample a row.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from mmavlm.core.errors import ConfigError
from mmavlm.data.shards.members import Sample
from mmavlm.data.shards.reading import DamagedShardError, Member, judged

if TYPE_CHECKING:
    from pyarrow import DataType
    from pyarrow.parquet import ParquetFile

PARQUET = ".parquet"
NAME, BYTES, ITEMS = "name", "bytes", "items"  # the columns of our own files
PATH = "path"  # beside `bytes`, where a column holds both
READ_AT_ONCE = 8  # rows: each may hold a film


class Columns(NamedTuple):
    """The column with the bytes of films, and the suffix of those whose rows say no name."""

    video: str = "video"
    suffix: str = ".mp4"


def parquet_members(file: BinaryIO, columns: Columns) -> Iterator[Member]:
    """What the rows of a Parquet file show.

    The column of films has bytes, or both `bytes` and a `path`, as Hugging Face writes it.

    Raises:
        DamagedShardError: if it is cut off, damaged, or nothing of the kind.
        ConfigError: if it has no such column.
    """
    ours, _, paired = _looked_at(file, columns)
    for number, row in enumerate(_rows(file, [NAME, BYTES] if ours else [columns.video])):
        told = row if ours else row[columns.video]
        content = told[BYTES] if (ours or paired) and told is not None else told
        name = row[NAME] if ours else _name(number, told[PATH] if paired and told else "", columns)
        if isinstance(content, bytes):
            part, problem = judged(str(name))
            yield Member(name, len(content), 0, part, problem, partial(io.BytesIO, content))


def parquet_samples(file: BinaryIO, columns: Columns) -> list[Sample]:
    """The samples of a Parquet file, with what columns say of them; no bytes of films are read.

    Raises:
        DamagedShardError: if it is cut off, damaged, or nothing of the kind.
        ConfigError: if it has no such column.
    """
    ours, names, paired = _looked_at(file, columns)
    if ours:
        return _our_samples(file)
    said = [name for name in names if name != columns.video]
    where = [f"{columns.video}.{PATH}"] if paired else []
    found = []
    for number, row in enumerate(_rows(file, said + where)):
        path = (row.pop(columns.video, None) or {}).get(PATH) if paired else ""
        part, problem = judged(_name(number, path, columns))
        sample = Sample(f"{number:08d}")
        if part is None:
            sample.problems.append(problem or f"its {columns.video!r} is no film that is known")
        else:
            sample.parts[part.path] = part
        sample.texts["json"] = json.dumps(row, default=str).encode()
        found.append(sample)
    return found


def _our_samples(file: BinaryIO) -> list[Sample]:
    found: dict[str, Sample] = {}
    for row in _rows(file, [NAME, ITEMS]):
        part, problem = judged(str(row[NAME]))
        key = row[NAME][:80] if part is None else part.key
        sample = found.setdefault(key, Sample(key))
        if problem is not None:
            sample.problems.append(problem)
        if part is not None:
            sample.parts[part.path] = part
        if row[ITEMS] is not None:
            sample.texts["items"] = row[ITEMS].encode()
    return list(found.values())


def _looked_at(file: BinaryIO, columns: Columns) -> tuple[bool, Sequence[str], bool]:
    """Whether a file is ours, its columns, and whether that of films has paths beside the bytes."""
    with _opened(file) as table:
        schema = table.schema_arrow
    if schema.names == [NAME, BYTES, ITEMS]:
        return True, schema.names, False
    if columns.video not in schema.names:
        raise ConfigError(
            f"data.reader.video={columns.video}, but the columns of a shard are "
            f"{', '.join(schema.names)}; name the one with the bytes of films"
        )
    kind: DataType = schema.field(columns.video).type
    fields = {kind.field(n).name for n in range(kind.num_fields)}
    return False, schema.names, {BYTES, PATH} <= fields


def _rows(file: BinaryIO, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file, of some columns."""
    with _opened(file) as table:
        batches = table.iter_batches(READ_AT_ONCE, columns=list(columns))
        while (batch := _told(next, batches, None)) is not None:
            yield from batch.to_pylist()


def _opened(file: BinaryIO) -> ParquetFile:
    import pyarrow.parquet as pq

    file.seek(0)
    return _told(pq.ParquetFile, file)


def _told(work: Callable[..., Any], *given: Any) -> Any:
    """What pyarrow gives, or a shard that is damaged."""
    import pyarrow as pa

    try:
        return work(*given)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedShardError(f"it is no whole Parquet file: {error}") from error


def _name(number: int, path: object, columns: Columns) -> str:
    """The name of a film that a row has the bytes of, by its number; its path says the suffix."""
    suffix = PurePosixPath(path).suffix if isinstance(path, str) else ""
    return f"{number:08d}{suffix or columns.suffix}"
