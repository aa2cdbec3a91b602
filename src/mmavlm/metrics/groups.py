"""Groups of questions that count only if every one of them is answered right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.intervals import proportion
from mmavlm.metrics.row_metric import RowMetric
from mmavlm.metrics.rows import check_lengths, first_of_each

ITEM, GROUP, RIGHT, SIZE = range(4)  # columns of a row


class GroupAccuracy(RowMetric):
    """The share of groups of which every question is answered right, beside that of questions.

    A group is one question over paired clips (VidHalluc, arXiv 2412.03735), the questions about
    one figure or one question over several figures (HallusionBench, CVPR 2024), or the ways one
    question is put (HAVEN, arXiv 2503.19622). `compute` gives floats: `accuracy` over groups,
    `item_accuracy` over questions, each with the `_low` and `_high` of its 95 % Wilson interval,
    `count` groups and `items`; and `incomplete`, the number of groups of which a question is
    missing (an unreadable film, a limit on items) and which are no part of the first. A question
    seen twice counts once. Without any they are nan.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(columns=4, **kwargs)

    def update(
        self,
        item_ids: Sequence[str],
        groups: Sequence[str],
        right: Sequence[bool],
        sizes: Sequence[int] | None = None,
    ) -> None:
        """Take n questions: their ids, the group of each, and whether the answer is right.

        `sizes` says how many questions the group of each has; without them those seen are all.

        Raises:
            ValueError: if the lengths differ.
        """
        sizes = [1] * len(item_ids) if sizes is None else sizes
        check_lengths("GroupAccuracy", item_ids=item_ids, groups=groups, right=right, sizes=sizes)
        columns = [string_keys(item_ids), string_keys(groups)]
        columns += [torch.tensor(list(of_each), dtype=torch.int64) for of_each in (right, sizes)]
        self.rows.append(torch.stack(columns, dim=1).to(self.device))

    def compute(self) -> dict[str, float]:
        """Accuracies, bounds and counts by name."""
        rows = self.all_rows()
        rows = rows[first_of_each(rows[:, ITEM])]
        groups, group = rows[:, GROUP].unique(return_inverse=True)
        right = rows.new_ones(len(groups)).scatter_reduce(0, group, rows[:, RIGHT], "amin")
        size = rows.new_zeros(len(groups)).scatter_reduce(0, group, rows[:, SIZE], "amax")
        whole = group.bincount(minlength=len(groups)) >= size
        n = int(whole.sum())
        return {
            **proportion("accuracy", int(right[whole].sum()), n),
            **proportion("item_accuracy", int(rows[:, RIGHT].sum()), len(rows)),
            "count": float(n),
            "incomplete": float(len(groups) - n),
            "items": float(len(rows)),
        }
