"""Shards that are fetched a little before their first film is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


class Ahead:
    """Calls `bring` with a visit of each shard of an epoch, at most `many` shards ahead.

    `shard` (N,) has the shard of each visit, -1 for none. What is brought is brought in order, by
    a thread that ends with its process, or when it is told to `stop`.
    """

    def __init__(
        self, shard: NDArray[np.int32], many: int, bring: Callable[[int], None], done: int = 0
    ) -> None:
        found, first = np.unique(shard, return_index=True)
        self.first = np.sort(first[found >= 0])  # the visits at which a shard comes first
        self.many = many
        self.bring = bring
        self._wanted = 0  # so many shards may be there by now
        self._ended = False
        self._changed = threading.Condition()
        if many and len(self.first):
            self.reach(done)
            threading.Thread(target=self._bring_all, daemon=True, name="shards ahead").start()

    def reach(self, visit: int) -> None:
        """Say that the epoch has come to a visit."""
        with self._changed:
            self._wanted = int(np.searchsorted(self.first, visit, side="right")) + self.many
            self._changed.notify()

    def stop(self) -> None:
        """Bring no more."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _bring_all(self) -> None:
        for number, visit in enumerate(self.first.tolist()):
            with self._changed:
                while not (self._ended or number < self._wanted):
                    self._changed.wait()
                if self._ended:
                    return
            self.bring(visit)
