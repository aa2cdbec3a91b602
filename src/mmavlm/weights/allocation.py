"""A limit on what building a model may allocate, so that a config cannot ask for terabytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmavlm.core.errors import NoMemoryError

_FACTORIES = (
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.zeros.default,
    torch.ops.aten.ones.default,
    torch.ops.aten.full.default,
    torch.ops.aten.rand.default,
    torch.ops.aten.randn.default,
)


class _Limit(TorchDispatchMode):
    """Counts the bytes of new tensors, and refuses the one that goes beyond `most_bytes`."""

    def __init__(self, what: str, most_bytes: int) -> None:
        super().__init__()
        self.what, self.most_bytes, self.bytes = what, most_bytes, 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES and torch.device(kwargs.get("device") or "cpu").type != "meta":
            dtype = kwargs.get("dtype") or torch.get_default_dtype()
            self.bytes += prod(args[0]) * dtype.itemsize
            if self.bytes > self.most_bytes:
                raise NoMemoryError(
                    f"{self.what} needs more than {self.bytes / 2**30:.1f} GiB, and "
                    f"{self.most_bytes / 2**30:.1f} GiB are free; set smaller sizes, or take a "
                    "larger machine"
                )
        return func(*args, **kwargs)


@contextmanager
def allocation_limit(what: str) -> Iterator[None]:
    """Let what is built here allocate no more tensors than there is free memory for.

    Raises:
        NoMemoryError: before the allocation that would go beyond.
    """
    with _Limit(what, psutil.virtual_memory().available):
        yield
