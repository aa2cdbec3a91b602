"""How often an answer tells what was not shown."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.intervals import proportion
from mmavlm.metrics.row_metric import RowMetric
from mmavlm.metrics.rows import check_lengths, first_of_each
from mmavlm.metrics.rules import normalise_answer

ITEM, RIGHT, UNSHOWN = range(3)  # columns of a row


class UnshownAnswers(RowMetric):
    """Of questions whose wrong `answers` each tell something else: how often one of them is given.

    `compute` gives floats: `unshown`, the share of items answered with a known answer that is not
    the truth; `accuracy`; and `count`. What is no known answer tells nothing, so it counts as
    neither. `<name>_low` and `<name>_high` are the bounds of 95 % Wilson intervals. An item seen
    twice counts once. Without items the shares are nan.
    """

    higher_is_better = False

    def __init__(self, answers: Collection[str], **kwargs: Any) -> None:
        super().__init__(columns=3, **kwargs)
        self.answers = frozenset(map(normalise_answer, answers))

    def update(
        self, item_ids: Sequence[str], answers: Sequence[str], truths: Sequence[str]
    ) -> None:
        """Take n items: their ids, the answers given, and what was shown.

        Raises:
            ValueError: if the lengths differ.
        """
        check_lengths("UnshownAnswers", item_ids=item_ids, answers=answers, truths=truths)
        said, true = (list(map(normalise_answer, texts)) for texts in (answers, truths))
        right = torch.tensor([a == b for a, b in zip(said, true, strict=True)], dtype=torch.int64)
        known = torch.tensor([answer in self.answers for answer in said], dtype=torch.int64)
        columns = [string_keys(item_ids), right, known * (1 - right)]
        self.rows.append(torch.stack(columns, dim=1).to(self.device))

    def compute(self) -> dict[str, float]:
        """Shares, bounds and count by name."""
        rows = self.all_rows()
        rows = rows[first_of_each(rows[:, ITEM])]
        return {
            **proportion("unshown", int(rows[:, UNSHOWN].sum()), len(rows)),
            **proportion("accuracy", int(rows[:, RIGHT].sum()), len(rows)),
            "count": float(len(rows)),
        }
