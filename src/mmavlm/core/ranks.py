"""Decisions that all processes must take alike, or some would wait for the others for ever."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


class Ranks:
    """The processes of a run; they speak through CPU memory, so no GPU is waited for."""

    def __init__(self) -> None:
        self._group: Any = None  # a process group, once there are processes

    def highest(self, code: int) -> int:
        """The greatest of the codes that the processes give; all must ask."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return code
        if self._group is None:
            self._group = distributed.new_group(backend="gloo")
        codes = torch.tensor(code)
        distributed.all_reduce(codes, distributed.ReduceOp.MAX, group=self._group)
        return int(codes)
