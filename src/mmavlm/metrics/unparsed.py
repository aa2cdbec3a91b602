"""How often a free answer to a question with options names none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mmavlm.hashing import string_keys
from mmavlm.metrics.row_metric import RowMetric
from mmavlm.metrics.rows import check_lengths, first_of_each


class UnparsedRate(RowMetric):
    """The share of answers that were read as nothing (""), an item seen twice counting once.

    `compute` gives `unparsed` and `parsed_of`, the number of items; nothing without items.
    """

    higher_is_better = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(columns=2, **kwargs)

    def update(self, item_ids: Sequence[str], answers: Sequence[str]) -> None:
        """Take n items and what each answer was read as."""
        check_lengths("UnparsedRate", item_ids=item_ids, answers=answers)
        unparsed = torch.tensor([not answer for answer in answers], dtype=torch.int64)
        self.rows.append(torch.stack([string_keys(item_ids), unparsed], dim=1).to(self.device))

    def compute(self) -> dict[str, float]:
        """The share and the count by name."""
        rows = self.all_rows()
        if not len(rows):
            return {}
        once = rows[first_of_each(rows[:, 0]), 1]
        return {"unparsed": float(once.double().mean()), "parsed_of": float(len(once))}
