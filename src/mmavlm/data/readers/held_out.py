"""Sets that come as one file: which of its entries are held out for validation and test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from mmavlm.core.errors import ConfigError
from mmavlm.data.readers.annotations import known_split
from mmavlm.data.readers.rows import Row


class HeldOut:
    """Holds out a `share` of a file's entries for validation, and as many for the test.

    The first of `keys` that an entry has decides, by a hash: all entries about one film or picture
    are of the same split, on every machine and in every copy of the file. Entries without any of
    them, or without values, belong to training, which reports them. With 0 all are of each split.
    Without `test` nothing is held out for that, which has a file of its own.

    Raises:
        ConfigError: if the share is not at least 0 and below a half.
    """

    def __init__(self, share: float, *keys: str, test: bool = True) -> None:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 0.5:
            raise ConfigError(
                f"data.reader.held_out must be a share of at least 0 and below 0.5, got {share!r}"
            )
        self.share = share
        self.keys = keys
        self.test = test

    def of(self, split: str, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows of a split.

        Raises:
            ConfigError: if the split is unknown.
        """
        known_split(split)
        return (row for row in rows if not self.share or self._split(row) == split)

    def _split(self, row: Row) -> str:
        name = next((str(row.values[key]) for key in self.keys if row.values.get(key)), None)
        if name is None:
            return "train"
        digest = blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        if place < self.share:
            return "val"
        return "test" if self.test and place < 2 * self.share else "train"
