"""Which of two actions comes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.intervals import proportion
from mmavlm.metrics.parsing import ORDERS, parse_order
from mmavlm.metrics.row_metric import RowMetric
from mmavlm.metrics.rows import check_lengths, first_of_each

ITEM, TRUTH, SAID = range(3)  # columns of a row


class OrderAccuracy(RowMetric):
    """Accuracy of answers that put two actions in order (VidHalluc's temporal sequence questions).

    `compute` gives floats: `accuracy` and `unparsed`, the share of answers that tell no order
    (they are wrong), each with the `_low` and `_high` of its 95 % Wilson interval; `first_ratio`,
    the share of answers that take the order in which the question names the actions, a habit to
    compare with `first_true`, how often that is right; `count`. An item seen twice counts once.
    Without items all are nan. See `parse_order` for how answers are read.

    VidHalluc (arXiv 2412.03735), section 4.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(columns=3, **kwargs)

    def update(
        self, item_ids: Sequence[str], answers: Sequence[str], truths: Sequence[str]
    ) -> None:
        """Take n questions: their ids, the answers given, and "AB" or "BA".

        Raises:
            ValueError: if the lengths differ, or a truth is neither.
        """
        check_lengths("OrderAccuracy", item_ids=item_ids, answers=answers, truths=truths)
        if unknown := set(truths) - set(ORDERS):
            raise ValueError(f"OrderAccuracy: a truth is AB or BA, got {sorted(unknown)}")
        said = [parse_order(text) for text in answers]
        columns = [
            string_keys(item_ids),
            torch.tensor([ORDERS.index(truth) for truth in truths], dtype=torch.int64),
            torch.tensor([-1 if order is None else ORDERS.index(order) for order in said],
                         dtype=torch.int64),
        ]  # fmt: skip
        self.rows.append(torch.stack(columns, dim=1).to(self.device))

    def compute(self) -> dict[str, float]:
        """Accuracy, bounds and counts by name."""
        rows = self.all_rows()
        rows = rows[first_of_each(rows[:, ITEM])]
        truth, said, n = rows[:, TRUTH], rows[:, SAID], len(rows)
        return {
            **proportion("accuracy", int((said == truth).sum()), n),
            **proportion("unparsed", int((said < 0).sum()), n),
            "first_ratio": float((said == 0).double().mean()),
            "first_true": float((truth == 0).double().mean()),
            "count": float(n),
        }
