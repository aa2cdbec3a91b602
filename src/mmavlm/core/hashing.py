"""Strings as integers, so that they can be compared and gathered across processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def string_keys(strings: Iterable[str], device: torch.device | None = None) -> Tensor:
    """A 63-bit key of each string, int64 (n,); equal strings have equal keys, in any process."""
    digests = (hashlib.blake2b(s.encode(), digest_size=8).digest() for s in strings)
    keys = [int.from_bytes(digest, "big") >> 1 for digest in digests]
    return torch.tensor(keys, dtype=torch.int64, device=device)
