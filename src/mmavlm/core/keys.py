"""Texts as integers, where only whether they are equal counts."""

from __future__ import annotations

import hashlib


def string_key(text: str) -> int:
    """A 63-bit key of a text, never negative; equal texts have equal keys, in any process."""
    # half a surrogate pair may stand in a file of JSON
    coded = text.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(coded, digest_size=8).digest(), "big") >> 1
