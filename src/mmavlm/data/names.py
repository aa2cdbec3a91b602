"""Very many names in eight bytes each: how many there are, and is one among them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
MIXER = 0xBF58476D1CE4E5B9
AT_ONCE = 1 << 16  # names
TOGETHER = 1 << 12  # texts, whose sums fit a processor's cache
LEAST_BITS = 17


class Names:
    """A set of names by their `hashes`, ascending; two names share one with a chance of n/2^64."""

    def __init__(self, hashes: Hashes) -> None:
        self.hashes = hashes

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """The set of these names."""
        rest, parts = iter(names), [np.zeros(0, np.uint64)]
        while some := list(islice(rest, AT_ONCE)):
            parts.append(hashes_of(some))
        return cls(np.unique(np.concatenate(parts)))

    def __len__(self) -> int:
        return len(self.hashes)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.among([name]))

    def among(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that are in the set, in their order."""
        asked = list(names)
        wanted = hashes_of(asked)
        at = np.searchsorted(self.hashes, wanted)
        there = at < len(self.hashes)
        there[there] = self.hashes[at[there]] == wanted[there]
        return [name for name, found in zip(asked, there.tolist(), strict=True) if found]

    def __or__(self, other: Names) -> Names:
        return Names(np.union1d(self.hashes, other.hashes))


def hashes_of(texts: Iterable[str]) -> Hashes:
    """A number for each text, the same in every process."""
    encoded = [text.encode(errors="surrogatepass") for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return text_hashes(np.frombuffer(b"".join(encoded), np.uint8), offsets)


def text_hashes(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Hashes:
    """A number for each of the texts that lie behind each other in `data`, UTF-8.

    Of the bytes b it is Σ (b_i + 1)·BASE^i modulo 2^64, its bits mixed.
    """
    found = np.empty(len(offsets) - 1, np.uint64)
    for start in range(0, len(found), TOGETHER):
        stop = min(start + TOGETHER, len(found))
        found[start:stop] = _weighted(data, offsets[start : stop + 1])
    found ^= found >> np.uint64(31)
    found *= np.uint64(MIXER)
    return found ^ (found >> np.uint64(29))


def _weighted(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Hashes:
    """The sums of some texts: up to every byte for all at once, less what stands before a text."""
    start, stop = int(offsets[0]), int(offsets[-1])
    powers, inverses = _powers(max(LEAST_BITS, (stop - start).bit_length()))
    sums = np.zeros(stop - start + 1, np.uint64)
    np.cumsum((data[start:stop] + np.uint64(1)) * powers[: stop - start], out=sums[1:])
    at = offsets - start
    return (sums[at[1:]] - sums[at[:-1]]) * inverses[at[:-1]]


@lru_cache(maxsize=8)
def _powers(bits: int) -> tuple[Hashes, Hashes]:
    """BASE^i and its inverse for i up to 2^bits, modulo 2^64."""
    bases = (BASE, pow(BASE, -1, 1 << 64))
    one, other = (np.full((1 << bits) + 1, base, np.uint64) for base in bases)
    one[0] = other[0] = 1
    return np.cumprod(one), np.cumprod(other)
