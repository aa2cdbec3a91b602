"""How many answers a model gives without the film, too: what of its mistakes is habit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.intervals import proportion
from mmavlm.metrics.row_metric import RowMetric
from mmavlm.metrics.rows import check_lengths, first_of_each
from mmavlm.metrics.rules import normalise_answer

HABITUAL = "habitual_mistakes"  # in metrics.json: wrong answers that stay without the film
ITEM, RIGHT, SAME = range(3)  # columns of a row


class HabitualAnswers(RowMetric):
    """Answers to a film beside those to another view of it, such as the text of the question alone.

    `compute` gives floats: `same`, the share of items answered alike; `habitual`, that share among
    wrong answers alone, which do not come from the film; `right`, the share of right answers where
    the other view is shown; each with the bounds of its 95 % Wilson interval as `<name>_low` and
    `<name>_high`; `count` items and `wrong_count` wrong ones. Texts are compared as answers are
    (`normalise_answer`). An item seen twice counts once. A share of nothing is nan.
    """

    higher_is_better = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(columns=4, **kwargs)

    def update(
        self,
        item_ids: Sequence[str],
        answers: Sequence[str],
        others: Sequence[str],
        right: Sequence[bool],
        others_right: Sequence[bool],
    ) -> None:
        """Take n items: their ids, the answers to film and other view, and which are right.

        Raises:
            ValueError: if the lengths differ.
        """
        check_lengths(
            "HabitualAnswers",
            item_ids=item_ids,
            answers=answers,
            others=others,
            right=right,
            others_right=others_right,
        )
        pairs = zip(answers, others, strict=True)
        same = [normalise_answer(a) == normalise_answer(b) for a, b in pairs]
        flags = torch.tensor([list(right), same, list(others_right)], dtype=torch.int64)
        rows = torch.cat([string_keys(item_ids)[None], flags]).mT
        self.rows.append(rows.to(self.device))

    def compute(self) -> dict[str, float]:
        """Shares, bounds and counts by name."""
        rows = self.all_rows()
        rows = rows[first_of_each(rows[:, ITEM])]
        wrong = rows[rows[:, RIGHT] == 0]
        return {
            **proportion("same", int(rows[:, SAME].sum()), len(rows)),
            **proportion("habitual", int(wrong[:, SAME].sum()), len(wrong)),
            **proportion("right", int(rows[:, -1].sum()), len(rows)),
            "count": float(len(rows)),
            "wrong_count": float(len(wrong)),
        }
