"""Two runs' predictions, item by item, as columns of integers: which are common, and the same."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmavlm.core.errors import DataError
from mmavlm.core.keys import string_key
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.rules import normalise_answer
from mmavlm.metrics.taken import Taken, in_parts

Column = NDArray[np.int64]
OTHER_ITEM = "compare runs that were tested on the same set"


class Run:
    """A run's predictions: what is kept to score them, and keys of each item, 40 bytes.

    `predictions` are read once, and once more if they turn out not to be those of the other run's
    items. Columns (n,): `item` and `video` are keys of their names, `asked` one of what must be the
    same in both runs, and `best` one of the best answer as it is compared.
    """

    def __init__(self, predictions: Iterable[Prediction]) -> None:
        self.predictions = predictions
        self.taken = Taken()
        self._columns = tuple(array("q") for _ in range(4))
        for part in in_parts(predictions):
            self.taken.take(part)
            for row in part:
                for column, key in zip(self._columns, _keys(row), strict=True):
                    column.append(key)

    def __len__(self) -> int:
        return len(self._columns[0])

    @cached_property
    def columns(self) -> tuple[Column, Column, Column, Column]:
        """The columns item, video, asked and best, in the order of the items' keys."""
        item, video, asked, best = (np.frombuffer(c, np.int64) for c in self._columns)
        order = np.argsort(item, kind="stable")
        return item[order], video[order], asked[order], best[order]

    @property
    def first(self) -> Prediction:
        """The first prediction."""
        return next(iter(self.predictions))

    def rows_of(self, items: set[int]) -> dict[str, Prediction]:
        """The predictions of items with these keys, by item."""
        return {row.item_id: row for row in self.predictions if string_key(row.item_id) in items}


class Common(NamedTuple):
    """How many items two runs have in common, and in how many of them the best answer changed."""

    items: int
    changed: int


def common_items(a: Run, b: Run) -> Common:
    """What two runs of the same tasks have in common.

    Raises:
        DataError: if that is no item, or one that is not the same in both.
    """
    of_a, of_b = a.columns, b.columns
    _, at_a, at_b = np.intersect1d(of_a[0], of_b[0], return_indices=True)
    if not len(at_a):
        raise DataError(
            f"the runs have no item in common: {a.first.item_id!r} and {b.first.item_id!r} are of "
            "different sets or splits; compare runs that were tested on the same one"
        )
    item, video_a, asked_a, best_a = (column[at_a] for column in of_a)
    _, video_b, asked_b, best_b = (column[at_b] for column in of_b)
    # a question of which nothing is shown has its own name as that of its video
    shown = (video_a != item) & (video_b != item)
    other = (asked_a != asked_b) | (shown & (video_a != video_b))
    if other.any():
        _refuse(a, b, set(item[other][:1].tolist()))
    return Common(len(item), int((best_a != best_b).sum()))


def _keys(row: Prediction) -> tuple[int, int, int, int]:
    asked = [row.task, row.truth, row.compare, *sorted(row.references)]
    best = normalise_answer(row.best, "whole" if row.compare == "caption" else row.compare)
    # lengths, since texts may hold whatever stands between them
    told = "".join(f"{len(text)}:{text}" for text in asked)
    return string_key(row.item_id), string_key(row.video_id), string_key(told), string_key(best)


def _refuse(a: Run, b: Run, items: set[int]) -> None:
    rows_b = b.rows_of(items)
    for item, of_a in a.rows_of(items).items():
        of_b = rows_b[item]
        shown = item not in (of_a.video_id, of_b.video_id)
        for key in ("task", *(["video_id"] if shown else []), "truth", "compare"):
            if getattr(of_a, key) != getattr(of_b, key):
                raise DataError(
                    f"item {item!r} is not the same in both runs: {key} is {getattr(of_a, key)!r} "
                    f"and {getattr(of_b, key)!r}; {OTHER_ITEM}"
                )
        raise DataError(
            f"item {item!r} has other references in one run than in the other; compare runs "
            "that were tested on the same files of captions"
        )
