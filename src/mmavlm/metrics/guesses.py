"""What guessing gives: the one answer that is right most often, task by task."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmavlm.core.keys import string_key
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.rules import normalise_answer


class Guess(NamedTuple):
    """The share of a task's items for which its best guess is right, and the longest ranking.

    The share is nan for captions, of which none can be guessed, and where there are no items.
    """

    share: float = math.nan
    choices: int = 0


class Guesses:
    """The guess of each task, from predictions taken in parts.

    Held are sixteen bytes of each text that is right for some item, and no text.
    """

    def __init__(self, predictions: Iterable[Prediction] = ()) -> None:
        self._texts: dict[str, _Counts] = defaultdict(_Counts)
        self._items: dict[str, int] = defaultdict(int)
        self._choices: dict[str, int] = defaultdict(int)
        self.take(predictions)

    def take(self, predictions: Iterable[Prediction]) -> None:
        """Count some more predictions."""
        keys: dict[str, list[int]] = defaultdict(list)
        for row in predictions:
            self._items[row.task] += 1
            self._choices[row.task] = max(self._choices[row.task], len(row.ranking))
            keys[row.task] += _right_keys(row)
        for task, of_task in keys.items():
            self._texts[task].add(of_task)

    def of(self, task: str) -> Guess:
        """The guess of a task."""
        most = self._texts[task].most() if task in self._texts else 0
        share = most / self._items[task] if most else math.nan
        return Guess(share, self._choices.get(task, 0))


def _right_keys(row: Prediction) -> list[int]:
    """Keys of the texts that would be right for an item, and that its rule lets be answered."""
    if row.compare == "caption":
        return []
    texts = {normalise_answer(text) for text in (row.truth, *row.references)}
    return [string_key(text) for text in texts if text == normalise_answer(text, row.compare)]


class _Counts:
    """How often each of many keys was added, as two arrays; the keys to come are merged in bulk."""

    def __init__(self) -> None:
        self._keys: NDArray[np.int64] = np.empty(0, np.int64)
        self._counts: NDArray[np.int64] = np.empty(0, np.int64)
        self._waiting: list[int] = []

    def add(self, keys: list[int]) -> None:
        self._waiting += keys
        if len(self._waiting) > max(100_000, len(self._keys)):
            self._merge()

    def most(self) -> int:
        """The count of the most frequent key, 0 without any."""
        self._merge()
        return int(self._counts.max(initial=0))

    def _merge(self) -> None:
        keys = np.concatenate([self._keys, np.array(self._waiting, np.int64)])
        ones = np.ones(len(self._waiting), np.int64)
        self._keys, place = np.unique(keys, return_inverse=True)
        counts = np.concatenate([self._counts, ones])
        self._counts = np.zeros(len(self._keys), np.int64)
        np.add.at(self._counts, place, counts)
        self._waiting = []
