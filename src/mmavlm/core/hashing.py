"""Strings as integers, so that they can be compared and gathered across processes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mmavlm.core.keys import string_key


def string_keys(strings: Iterable[str], device: torch.device | None = None) -> Tensor:
    """A 63-bit key of each string, int64 (n,); equal strings have equal keys, in any process."""
    keys = list(map(string_key, strings))
    return torch.tensor(keys, dtype=torch.int64, device=device)
