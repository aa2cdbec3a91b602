"""LLaMA-VID's pickles of features, read without running anything that they name.

A pickle is a program: it names functions, and loading calls them. Here every name is answered by a
stand-in of ours that keeps bytes and shapes, and any other name is refused. Sizes that a
file declares are compared with the file before it is loaded, those of arrays with their bytes.
"""

from __future__ import annotations

import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import torch

from mmavlm.core.checksums import damage_of_zip
from mmavlm.core.errors import DataError

NUMBERS = ("f2", "f4")  # kinds of numbers that features may have
REMEDY = "make the pickle again with the script that made it, or get it again"
# Names by which numpy 1 and 2 know the same.
NUMPY = ("numpy.core", "numpy._core")
# Opcodes that ask for objects by other ways than a name and a call.
TORCH_SAYS = "WeightsUnpickler error:"
MOST_OPCODES = 100_000
REFUSED = ("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "OBJ",
           "NEXT_BUFFER", "READONLY_BUFFER")  # fmt: skip


class FilmPickle(NamedTuple):
    """A film's features (T,P,Dv), and the text in which each frame has its placeholder."""

    features: torch.Tensor
    text: str


def read_film_pickle(path: Path) -> FilmPickle:
    """The features and the text of `{"feats": array, "inputs": text}`, pickled or by `torch.save`.

    Raises:
        DataError: naming the file, and what in it is refused.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a pickle of LLaMA-VID's features")
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        found = _saved_by_torch(path) if zipped else _plain(path)
        return _film(found)
    except (
        pickle.UnpicklingError, ValueError, EOFError, TypeError, KeyError, IndexError,
        AttributeError, MemoryError, OverflowError, RecursionError, RuntimeError,
    ) as error:  # fmt: skip
        raise DataError(f"{path}: {_reason(error)}; {REMEDY}") from error


def _reason(error: Exception) -> str:
    """What an error says in a line; torch's own has paragraphs, and advises to trust the file."""
    lines = str(error).splitlines() or [type(error).__name__]
    named = (line for line in lines[1:] if "GLOBAL" in line)
    return next(named, lines[0]).rpartition(TORCH_SAYS)[2].partition(". ")[0].strip()


def _film(found: Any) -> FilmPickle:
    if not isinstance(found, dict) or not {"feats", "inputs"} <= found.keys():
        raise ValueError('it is no {"feats": array, "inputs": text}')
    features, text = found["feats"], found["inputs"]
    if isinstance(features, _Array):
        features = features.tensor()
    if not isinstance(features, torch.Tensor) or not isinstance(text, str):
        kinds = type(features).__name__, type(text).__name__
        raise ValueError(f"feats and inputs are {kinds}; expected an array and a text")
    if features.ndim != 3 or not features.numel() or not features.is_floating_point():
        raise ValueError(f"feats are {features.dtype} {tuple(features.shape)}, expected (T,P,Dv)")
    return FilmPickle(features, text)


def _saved_by_torch(path: Path) -> Any:
    """What `torch.save` wrote, by torch's own reader of weights alone."""
    if (damage := damage_of_zip(path, contents=False)) is not None:
        raise ValueError(damage)
    found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    features = found.get("feats") if isinstance(found, dict) else None
    if isinstance(features, torch.Tensor) and (
        features.layout != torch.strided or features.nbytes > features.untyped_storage().nbytes()
    ):  # a stride of 0 makes a terabyte of one number
        raise ValueError(f"feats claim to be {tuple(features.shape)}, and have fewer numbers")
    return found


def _plain(path: Path) -> Any:
    """What a pickle holds, once no opcode of it claims more than there is."""
    with path.open("rb") as file:
        _look_through(file, path.stat().st_size)
        file.seek(0)
        return _Reader(file).load()


def _look_through(file: BinaryIO, size: int) -> None:
    """Refuse opcodes that reach beyond a pickle, names, and sizes beyond the file, unrun."""
    whole = _Whole(file, size)
    # of a file it asks for what `_Whole` has, and no more
    for count, (opcode, found, _) in enumerate(pickletools.genops(cast("BinaryIO", whole))):
        argument: Any = found
        if opcode.name in REFUSED or count > MOST_OPCODES:
            raise pickle.UnpicklingError(
                f"its opcode {count}, {opcode.name}, is refused: features take a few dozen, which "
                "name things and call them"
            )
        if opcode.name in ("GLOBAL", "INST"):
            named(*argument.split(" ", 1))
        # pickles count what they keep; a number out of the air would take memory up to it
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= argument <= count:
            raise pickle.UnpicklingError(f"it keeps a thing as number {argument} of {count}")
        if opcode.name == "FRAME":
            whole.require(argument)


class _Whole:
    """A file that is not asked for more than it has."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size

    def require(self, count: int) -> None:
        left = self.size - self.file.tell()
        if not 0 <= count <= left:
            raise pickle.UnpicklingError(f"it claims {count} bytes where {left} are left")

    def read(self, count: int) -> bytes:
        self.require(count)
        return self.file.read(count)

    def readline(self) -> bytes:
        return self.file.readline()

    def tell(self) -> int:
        return self.file.tell()


class _Reader(pickle.Unpickler):
    """Plain values, and arrays of numbers by stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        return named(module, name)


def named(module: str, name: str) -> Any:
    """The stand-in of what a pickle names.

    Raises:
        UnpicklingError: naming what is refused.
    """
    found = _STAND_INS.get((module, name))
    if found is None:
        raise pickle.UnpicklingError(
            f"it names {module}.{name}, which is refused: of a pickle only numbers, texts, plain "
            "containers and numpy's arrays are read"
        )
    return found


class _StandIn:
    """What is called in the place of a function or class; nothing can be set on it."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"it sets {name} of a function, which is refused")


class _Numbers:
    """A dtype: little or big endian, of one of `NUMBERS`."""

    def __init__(self, kind: Any = None, *_: Any) -> None:
        if not isinstance(kind, str) or kind.lstrip("<>=|") not in NUMBERS:
            raise pickle.UnpicklingError(
                f"its array holds {kind!r}, which is refused; expected one of {', '.join(NUMBERS)}"
            )
        self.kind = kind

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "="):
            raise pickle.UnpicklingError(f"its numbers have the order {order!r}")
        self.kind = order + self.kind.lstrip("<>=|")


class _Array:
    """An array as its bytes, kind and shape; a tensor once these fit each other."""

    def __init__(
        self, raw: Any = b"", numbers: Any = None, shape: Any = (), order: Any = "C"
    ) -> None:
        self.parts = (raw, numbers, shape, order)

    def __setstate__(self, state: Any) -> None:
        _, shape, numbers, fortran, raw = state
        self.parts = (raw, numbers, shape, "F" if fortran else "C")

    def tensor(self) -> torch.Tensor:
        raw, numbers, shape, order = self.parts
        if not isinstance(numbers, _Numbers) or not isinstance(raw, bytes | bytearray):
            raise ValueError(f"its array has {type(raw).__name__} of {type(numbers).__name__}")
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"its array has the shape {shape!r}")
        dtype = np.dtype(numbers.kind)
        if math.prod(shape) * dtype.itemsize != len(raw) or order not in ("C", "F"):
            raise ValueError(f"its array claims {shape} {dtype} and has {len(raw)} bytes")
        found = np.frombuffer(raw, dtype).reshape(shape, order=order)
        native = found.astype(dtype.newbyteorder("="), order="C", copy=not found.flags.writeable)
        return torch.from_numpy(native)


def _latin1(text: Any, encoding: Any) -> bytes:
    """What pickles of protocol 2 have for bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes as {encoding!r}, which is refused")
    return text.encode("latin-1")


_STAND_INS: dict[tuple[str, str], _StandIn] = {
    ("numpy", "ndarray"): _StandIn(_Array),
    ("numpy", "dtype"): _StandIn(_Numbers),
    ("_codecs", "encode"): _StandIn(_latin1),
    **{(f"{root}.multiarray", "_reconstruct"): _StandIn(lambda *_: _Array()) for root in NUMPY},
    **{(f"{root}.numeric", "_frombuffer"): _StandIn(_Array) for root in NUMPY},
}
