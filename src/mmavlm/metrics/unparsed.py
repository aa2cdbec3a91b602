"""How often a free answer to a question with options names none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.answers import unparsed_share
from mmavlm.metrics.row_metric import RowMetric
from mmavlm.metrics.rows import check_lengths


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
        return unparsed_share(rows[:, 0], rows[:, 1])
