"""The tensors of a safetensors file, mapped: of a file of its own, or of a part of a larger one."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

DTYPES: dict[str, Any] = {"F16": np.float16, "F32": np.float32, "I32": np.int32, "I64": np.int64}
NAMES = {torch.float16: "F16", torch.float32: "F32", torch.int32: "I32", torch.int64: "I64"}
MAX_HEADER_BYTES = 1 << 24


class Stored(NamedTuple):
    """The tensors of a file by name, not yet read from disk, and what its header tells."""

    tensors: dict[str, Tensor]
    told: dict[str, str]

    @property
    def shapes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype and shape of each tensor."""
        return {
            name: (NAMES.get(part.dtype, str(part.dtype)), tuple(part.shape))
            for name, part in self.tensors.items()
        }


def stored_in(path: Path) -> Stored:
    """The tensors of a file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is none of safetensors, or cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return Stored({n: file.get_tensor(n) for n in file.keys()}, dict(file.metadata() or {}))  # noqa: SIM118
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except (SafetensorError, OSError) as error:
        raise ValueError(str(error)) from error


def stored_at(content: NDArray[np.uint8]) -> Stored:
    """The tensors of the bytes (n,) of a file.

    Raises:
        ValueError: if they are those of no file with these dtypes.
    """
    size = int.from_bytes(content[:8].tobytes(), "little")
    if len(content) < 8 or size > min(len(content) - 8, MAX_HEADER_BYTES):
        raise ValueError(f"its header of {size} bytes is longer than it is")
    try:
        header = json.loads(content[8 : 8 + size].tobytes())
        told = header.pop("__metadata__", {})
        data = content[8 + size :]
        return Stored({name: _tensor(data, **part) for name, part in header.items()}, told)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header is damaged ({error})") from error


def _tensor(data: NDArray[np.uint8], dtype: str, shape: list[int], data_offsets: Any) -> Tensor:
    begin, end = data_offsets
    kind = np.dtype(DTYPES[dtype])
    if not 0 <= begin <= end <= len(data) or end - begin != prod(shape) * kind.itemsize:
        raise ValueError(f"a tensor of {dtype} {shape} from {begin} to {end} of {len(data)}")
    return torch.from_numpy(data[begin:end].view(kind).reshape(shape))
