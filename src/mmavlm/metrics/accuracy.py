"""Top-k accuracy of answers as a metric; `answers.py` counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from mmavlm.core.errors import ConfigError
from mmavlm.metrics.answers import answer_rows, summarise
from mmavlm.metrics.row_metric import RowMetric
from mmavlm.metrics.rows import check_lengths
from mmavlm.metrics.rules import Compare


class AnswerAccuracy(RowMetric):
    """Exact match of answers, or (`compare`) of their first words, with the truth or a reference.

    Case and spaces do not count.

    `compute` gives floats: `top1` and the other `top<k>`, `count`, and `video_top1`,
    `video_count`: the most frequent best answer of a video's items that ask the same and share one
    truth (each question, and each truth of it, stands alone). `<name>_low` and `<name>_high` are
    the bounds of the 95 % Wilson interval. An item seen twice, as when a sampler pads the last
    batch, counts once. Without items the accuracies are nan.

    Raises:
        ConfigError: if the comparison is unknown.
        ValueError: if `top_k` holds anything below 1.
    """

    def __init__(
        self, top_k: Sequence[int] = (1, 5), compare: Compare = "whole", **kwargs: Any
    ) -> None:
        super().__init__(columns=5, **kwargs)
        if any(k < 1 for k in top_k):
            raise ValueError(f"AnswerAccuracy: top_k counts answers from 1, got {list(top_k)}")
        if compare not in get_args(Compare):
            known = ", ".join(get_args(Compare))
            raise ConfigError(f"stage.compare={compare!r} is unknown; choose one of {known}")
        self.top_k = tuple(top_k)
        self.compare = compare

    def update(
        self,
        item_ids: Sequence[str],
        video_ids: Sequence[str],
        answers: Sequence[Sequence[str]],
        truths: Sequence[str],
        references: Sequence[Sequence[str]] | None = None,
        prompts: Sequence[str] | None = None,
    ) -> None:
        """Take n items: their ids, their videos', the answers given (best first), the truths.

        `references` are the other texts that count as right for each, `prompts` what was asked, by
        default the same of all.
        """
        check_lengths(
            "AnswerAccuracy", item_ids=item_ids, video_ids=video_ids, answers=answers, truths=truths
        )
        given = (item_ids, video_ids, answers, truths)
        rows = answer_rows(*given, self.compare, references, prompts)
        self.rows.append(rows.to(self.device))

    def compute(self) -> dict[str, float]:
        """Accuracies, bounds and counts by name."""
        return summarise(self.all_rows(), self.top_k)
