"""Where the films of a set lie: on a disk, or elsewhere, from where they come as they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mmavlm.core.items import Item, Reader
from mmavlm.core.medium import Medium
from mmavlm.data.items import present
from mmavlm.data.names import Names
from mmavlm.data.readers.json_files import require_root

NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class Nearby:
    """Which items lie together: `shard` int32 (N,) says where each does, -1 nowhere.

    Shards are counted through the sets that items are of; `groups` has, for each of these, how
    many shards it has, and of how many of them items are mixed at a time. So many as `ahead` are
    fetched before their items are visited.
    """

    shard: NDArray[np.int32]
    groups: tuple[tuple[int, int], ...]
    ahead: int = 0

    @classmethod
    def joined(cls, parts: Sequence[Nearby | None], sizes: Sequence[int]) -> Nearby | None:
        """The items of several sets, one behind the other; None if they may come in any order."""
        if not any(parts):
            return None
        found: list[NDArray[np.int32]] = []
        groups: list[tuple[int, int]] = []
        first = 0
        for part, size in zip(parts, sizes, strict=True):
            if part is None:
                found.append(np.full(size, -1, np.int32))
                continue
            found.append(np.where(part.shard < 0, -1, part.shard + np.int32(first)))
            groups += part.groups
            first += sum(count for count, _ in part.groups)
        ahead = max(part.ahead for part in parts if part is not None)
        return cls(np.concatenate(found), tuple(groups), ahead)


class There(NamedTuple):
    """The names of all films, film → why it cannot be had, and the items that can be shown."""

    films: Names
    missing: dict[str, str]
    items: Sequence[Item]


class Films(Protocol):
    """Where films lie. A reader has one as `films` if they do not lie below the root of a set."""

    @property
    def at_hand(self) -> bool:
        """Whether films may be looked at without being fetched."""

    def folder(self, root: str | Path, asked: Mapping[str, object] = NOTHING) -> Path:
        """The folder below which films lie once they are there.

        `asked` are settings that need all films at hand at the start. ConfigError if there is no
        such folder, or any is made that cannot be had.
        """

    def there(self, split: str, items: Sequence[Item]) -> There:
        """Which films of a split can be had, as far as that is known at the start."""

    def lent(self, medium: Medium) -> AbstractContextManager[None]:
        """Have a film there, and keep it there meanwhile; VideoError if it cannot be had."""

    def fetch(self, medium: Medium) -> None:
        """Have a film fetched that is soon to be lent; if it cannot be had, lending it tells."""

    def nearby(self, items: Sequence[Item]) -> Nearby | None:
        """Which items lie together; None if they may come in any order."""


class FilmsOnDisk:
    """Films that lie below the root of a set."""

    at_hand = True

    def folder(self, root: str | Path, asked: Mapping[str, object] = NOTHING) -> Path:
        """The root; ConfigError if there is none."""
        return require_root(Path(root))

    def there(self, split: str, items: Sequence[Item]) -> There:
        """Those that exist."""
        films, missing, found = present(items)
        return There(films, {n: f"{path} does not exist" for n, path in missing.items()}, found)

    def lent(self, medium: Medium) -> AbstractContextManager[None]:
        """Nothing is to be done."""
        return nullcontext()

    def fetch(self, medium: Medium) -> None:
        """Nothing is to be done."""

    def nearby(self, items: Sequence[Item]) -> None:
        """They may come in any order."""


def films_of(reader: Reader) -> Films:
    """Where the films of a reader lie."""
    inner = getattr(reader, "reader", None)  # of one that changes what another one reads
    own: Films | None = getattr(reader, "films", None)
    return own or (FilmsOnDisk() if inner is None else films_of(inner))
