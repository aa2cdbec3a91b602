"""Parts that may go through torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch

from mmavlm.core.errors import ConfigError

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function, backend: str | None) -> Function:
    """`function` compiled for any batch and length, or as it is where `backend` is None.

    Raises:
        ConfigError: if torch has no such backend.
    """
    if backend is None:
        return function
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise ConfigError(
            f"compile_backend={backend!r} is unknown to torch {torch.__version__}; choose one of "
            f"{', '.join(known)}"
        )
    return cast(Function, torch.compile(function, backend=backend, dynamic=True))
