"""Groups of questions that count only if every one of them is answered right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mmavlm.hashing import string_keys
from mmavlm.metrics.intervals import proportion
from mmavlm.metrics.rows import RowMetric, check_lengths, first_of_each

ITEM, GROUP, RIGHT = range(3)  # columns of a row


class GroupAccuracy(RowMetric):
    """The share of groups of which every question is answered right, beside that of questions.

    A group is one question over paired clips (VidHalluc, arXiv 2412.03735), the questions about
    one figure or one question over several figures (HallusionBench, CVPR 2024), or the ways one
    question is put (HAVEN, arXiv 2503.19622). `compute` gives floats: `accuracy` over groups,
    `item_accuracy` over questions, each with the `_low` and `_high` of its 95 % Wilson interval,
    `count` groups and `items`. A question seen twice counts once. Without any they are nan.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(columns=3, **kwargs)

    def update(self, item_ids: Sequence[str], groups: Sequence[str], right: Sequence[bool]) -> None:
        """Take n questions: their ids, the group of each, and whether the answer is right.

        Raises:
            ValueError: if the lengths differ.
        """
        check_lengths("GroupAccuracy", item_ids=item_ids, groups=groups, right=right)
        columns = [string_keys(item_ids), string_keys(groups)]
        columns.append(torch.tensor(list(right), dtype=torch.int64))
        self.rows.append(torch.stack(columns, dim=1).to(self.device))

    def compute(self) -> dict[str, float]:
        """Accuracies, bounds and counts by name."""
        rows = self.all_rows()
        rows = rows[first_of_each(rows[:, ITEM])]
        groups, group = rows[:, GROUP].unique(return_inverse=True)
        whole = rows.new_ones(len(groups)).scatter_reduce(0, group, rows[:, RIGHT], "amin")
        return {
            **proportion("accuracy", int(whole.sum()), len(groups)),
            **proportion("item_accuracy", int(rows[:, RIGHT].sum()), len(rows)),
            "count": float(len(groups)),
            "items": float(len(rows)),
        }
