"""Which class was answered where another was true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmavlm.core.errors import ConfigError
from mmavlm.core.hashing import string_keys
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.row_metric import RowMetric
from mmavlm.metrics.rows import first_of_each
from mmavlm.metrics.rules import normalise_answer

_ITEM, _TASK, _PLACE = range(3)  # columns of a row
_NO_CLASS = -1


def confusion(truths: Sequence[str], answers: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Counts (C,C+1), int64: true class in rows, answered class in columns, others in the last.

    Texts are compared as `normalise_answer` leaves them. What is truly none of the classes has no
    row and is not counted.

    Raises:
        ConfigError: if two classes are the same text (see `unlike`).
        ValueError: if there are not as many answers as truths.
    """
    if len(truths) != len(answers):
        raise ValueError(f"confusion: got {len(truths)} truths but {len(answers)} answers")
    return _counted(_places(truths, answers, classes), len(classes))


def unlike(classes: Sequence[str]) -> list[str]:
    """The classes without those that read like one before (see `normalise_answer`)."""
    first: dict[str, str] = {}
    for name in classes:
        first.setdefault(normalise_answer(name), name)
    return list(first.values())


class Counted(NamedTuple):
    """Counts (C,C+1) as of `confusion`, and how many items are truly none of the classes."""

    counts: Tensor
    left_out: int


class ConfusionCounts(RowMetric):
    """Which class was answered where another was true, over all items of each task with classes.

    `compute` gives task → `Counted`, without tasks of which no item was seen. An item seen twice
    counts once, and the answer is the best one. Classes that read alike are one (see `unlike`).
    """

    def __init__(self, classes: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(columns=3, **kwargs)
        self.classes = {task: unlike(names) for task, names in classes.items()}
        self._numbers = {task: number for number, task in enumerate(self.classes)}

    def update(self, rows: Sequence[Prediction]) -> None:
        """Take predictions; those of other tasks, and those without an answer, are passed over."""
        for task, names in self.classes.items():
            of_task = [row for row in rows if row.task == task and (row.answers or row.ranking)]
            if not of_task:
                continue
            truths, answers = [row.truth for row in of_task], [row.best for row in of_task]
            keys = string_keys([row.item_id for row in of_task])
            places = _places(truths, answers, names)
            number = torch.full_like(keys, self._numbers[task])
            self.rows.append(torch.stack([keys, number, places], dim=1).to(self.device))

    def compute(self) -> dict[str, Counted]:
        """The counts of each task, on the CPU."""
        rows = self.all_rows()
        rows = rows[first_of_each(rows[:, _ITEM])].cpu()
        found = {}
        for task, names in self.classes.items():
            places = rows[rows[:, _TASK] == self._numbers[task], _PLACE]
            if len(places):
                left_out = int((places == _NO_CLASS).sum())
                found[task] = Counted(_counted(places, len(names)), left_out)
        return found


def _places(truths: Sequence[str], answers: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Where each pair is counted, in the rows of counts (C,C+1) laid end to end, int64 (n,)."""
    index = {normalise_answer(name): i for i, name in enumerate(classes)}
    if len(index) < len(classes):
        raise ConfigError(f"confusion: the classes {list(classes)} hold the same text twice")
    other = len(classes)
    places = [
        index[true] * (other + 1) + index.get(normalise_answer(answer), other)
        if (true := normalise_answer(truth)) in index
        else _NO_CLASS
        for truth, answer in zip(truths, answers, strict=True)
    ]
    return torch.tensor(places, dtype=torch.int64)


def _counted(places: Tensor, classes: int) -> Tensor:
    flat = places[places != _NO_CLASS].bincount(minlength=classes * (classes + 1))
    return flat.view(classes, classes + 1)
