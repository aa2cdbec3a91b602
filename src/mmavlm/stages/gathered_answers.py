"""The answers of all processes, brought to the first one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import distributed

from mmavlm.stages.answer_file import AnswerFile

CHUNK = 2**24  # bytes that are sent at once


def gathered_files(own: AnswerFile) -> list[AnswerFile]:
    """The files of all processes, in the first one; elsewhere the own one alone.

    Those that the first process finds on its disk are read there, and others are sent.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    told: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(told, (own.path, own.size()))
    rank, files = distributed.get_rank(), [own]
    for other, (path, size) in enumerate(told):
        if other == 0:
            continue
        here = _broadcast(rank == 0 and _is_there(path, size), 0)
        if not here:
            path = _sent(own, other, size)
        if rank == 0:
            assert path is not None
            files.append(AnswerFile.read(path))
            if not here:
                path.unlink()  # it stays open
    return files


def _is_there(path: Path | None, size: int) -> bool:
    return path is not None and path.is_file() and path.stat().st_size == size


def _sent(own: AnswerFile, sender: int, size: int) -> Path | None:
    """The bytes of a process's file in a temporary one of the first process, None elsewhere."""
    rank, path = distributed.get_rank(), None
    if rank == 0:
        with tempfile.NamedTemporaryFile(delete=False, suffix=".jsonl") as file:
            path = Path(file.name)
    for start in range(0, size, CHUNK):
        content = own.bytes_at(start, CHUNK) if rank == sender else None
        content = _broadcast(content, sender)
        if path is not None:
            with path.open("ab") as file:
                file.write(content)
    return path


def _broadcast(value: Any, sender: int) -> Any:
    held = [value]
    distributed.broadcast_object_list(held, src=sender)
    return held[0]
