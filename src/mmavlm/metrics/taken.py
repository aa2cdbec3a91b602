"""What is kept of predictions to score them: rows of integers, and of captions alone the texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.answers import answer_rows
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.rules import Rule

Kind = Literal["generated", "ranked", "said"]
KINDS: tuple[Kind, ...] = ("generated", "ranked", "said")  # in the order they are told
PART = 8192  # so many predictions are held at once


@dataclass
class Captions:
    """The captions of a task, whose scores need the texts themselves."""

    items: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    references: list[list[str]] = field(default_factory=list)

    def take(self, rows: Sequence[Prediction]) -> None:
        """Add the best captions of some predictions."""
        self.items += [row.item_id for row in rows]
        self.videos += [row.video_id for row in rows]
        self.texts += [row.answers[0].text for row in rows]
        self.references += [row.references for row in rows]


class Taken:
    """Predictions by task and kind of answer, taken in parts; a task has one rule.

    Rows are those of `answer_rows`, (n,5) int64; of what was said (n,2), the item's key and whether
    it names no option. So 40 bytes are held of an answer, and of captions all texts.
    """

    def __init__(self) -> None:
        self.rules: dict[str, Rule] = {}  # of each task, in the order in which they came
        self.items: dict[str, int] = {}  # how many each task has
        self.captions: dict[str, Captions] = {}
        self._rows: dict[tuple[str, Kind], list[Tensor]] = {}

    def take(self, rows: Iterable[Prediction]) -> None:
        """Add some predictions."""
        by_task: dict[str, list[Prediction]] = {}
        for row in rows:
            by_task.setdefault(row.task, []).append(row)
        for task, of_task in by_task.items():
            self.rules[task] = of_task[-1].compare
            self.items[task] = self.items.get(task, 0) + len(of_task)
            for kind in KINDS:
                if given := [row for row in of_task if _given(row, kind)]:
                    self._take(task, kind, given)

    def rows(self, task: str, kind: Kind) -> Tensor | None:
        """The rows of a task's answers of a kind, None where there are none."""
        parts = self._rows.get((task, kind))
        if parts is None:
            return None
        if len(parts) > 1:
            parts[:] = [torch.cat(parts)]
        return parts[0]

    def _take(self, task: str, kind: Kind, given: Sequence[Prediction]) -> None:
        rule = self.rules[task] if kind == "generated" else "whole"
        if kind == "said":
            unparsed = torch.tensor([not row.answers[0].text for row in given], dtype=torch.int64)
            keys = string_keys(row.item_id for row in given)
            self._rows.setdefault((task, kind), []).append(torch.stack([keys, unparsed], dim=1))
            return
        if rule == "caption":
            self.captions.setdefault(task, Captions()).take(given)
            return
        answers = [row.ranking if kind == "ranked" else row.answers for row in given]
        rows = answer_rows(
            [row.item_id for row in given],
            [row.video_id for row in given],
            [[answer.text for answer in of_row] for of_row in answers],
            [row.truth for row in given],
            rule,
            [row.references for row in given],
            [row.prompt for row in given],
        )
        self._rows.setdefault((task, kind), []).append(rows)


def in_parts(rows: Iterable[Prediction], size: int = PART) -> Iterator[list[Prediction]]:
    """Predictions in lists of `size`, the last one shorter."""
    left = iter(rows)
    while part := list(islice(left, size)):
        yield part


def _given(row: Prediction, kind: Kind) -> bool:
    return bool({"generated": row.answers, "ranked": row.ranking, "said": row.said}[kind])
