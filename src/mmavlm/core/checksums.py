"""CRC-32 of stored tensors and files: it finds damage, not forgery.

torch's zip files bring one for each record, which torch itself does not compare. safetensors have
none: theirs lie in the header, one for each tensor, so that a part can be verified alone.
"""

from __future__ import annotations

import json
import logging
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

KEY = "crc32"  # of the metadata of a safetensors file


def tensor_crc32(tensor: Tensor) -> int:
    """CRC-32 of a tensor's dtype, shape and bytes."""
    plain = tensor.detach().cpu().contiguous()
    start = zlib.crc32(f"{plain.dtype} {tuple(plain.shape)}".encode())
    return zlib.crc32(plain.reshape(-1).view(torch.uint8).numpy().data, start)


def file_crc32(path: Path) -> str:
    """CRC-32 of a file that is small."""
    return f"{zlib.crc32(path.read_bytes()):08x}"


def noted(state: Mapping[str, Tensor]) -> str:
    """The checksums of tensors by name, as a header holds them under `KEY`."""
    return json.dumps({name: f"{tensor_crc32(tensor):08x}" for name, tensor in state.items()})


def damaged_tensors(state: Mapping[str, Tensor], told: str) -> list[str]:
    """The names whose tensors are not those of which `noted` told, or of which it did not tell."""
    try:
        wanted = json.loads(told)
    except (ValueError, RecursionError):
        wanted = None
    if not isinstance(wanted, dict):
        return list(state)
    return [n for n, tensor in state.items() if wanted.get(n) != f"{tensor_crc32(tensor):08x}"]


def damage_of_zip(path: Path, *, contents: bool = True) -> str | None:
    """What is wrong with a zip file that torch wrote; None if nothing is.

    Nothing is unpacked: torch stores records as they are, so one that is compressed is refused, and
    all together cannot be larger than the file. Without `contents` no record is read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            packed = [r.filename for r in records if r.compress_type != zipfile.ZIP_STORED]
            if packed:
                return f"its record {packed[0]} is compressed, which torch does not do"
            promised, there = sum(r.file_size for r in records), path.stat().st_size
            if promised > there:
                return f"it promises {promised} bytes and has {there}"
            broken = archive.testzip() if contents else None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return str(error) or type(error).__name__
    return None if broken is None else f"the checksum of its record {broken} is another"


@cache
def tell_unverified(what: str) -> None:
    """Say once that something has no checksums."""
    log.info("%s has no checksums, since an earlier version wrote it: taken as it is", what)
