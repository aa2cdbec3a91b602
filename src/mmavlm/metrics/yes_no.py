"""Yes/no answers: accuracy, precision, recall, F1, and how much is answered with yes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.intervals import bootstrap_interval, proportion
from mmavlm.metrics.parsing import UNPARSED, YES, parse_yes_no
from mmavlm.metrics.row_metric import RowMetric
from mmavlm.metrics.rows import check_lengths, first_of_each

ITEM, TRUTH, SAID = range(3)  # columns of a row


def verdicts(answers: Sequence[str], parsing: str = "strict") -> Tensor:
    """What each of n answers is read as: int64 (n,) of `YES`, `NO`, `UNPARSED`."""
    return torch.tensor([parse_yes_no(text, parsing) for text in answers], dtype=torch.int64)


def truth_verdicts(truths: Sequence[str]) -> Tensor:
    """What is true of each of n questions: int64 (n,) of `YES` and `NO`.

    Raises:
        ValueError: if a truth is neither yes nor no.
    """
    said = verdicts(truths)
    if bool((said == UNPARSED).any()):
        first = truths[int((said == UNPARSED).nonzero()[0])]
        raise ValueError(f"a yes/no question has yes or no for its truth, got {first!r}")
    return said


def yes_no_stats(truth: Tensor, said: Tensor) -> dict[str, float]:
    """The statistics of n questions from what is true and what was said, int64 (n,) each.

    `YES` is the positive class. An unparsed answer is wrong, and neither yes nor no: it lowers
    accuracy and recall, and leaves precision alone. Numbers whose denominator is 0 are nan.
    """
    true_yes, said_yes = truth == YES, said == YES
    counts = torch.stack(
        [true_yes & said_yes, ~true_yes & said_yes, true_yes & ~said_yes, said != truth], dim=1
    ).double()  # hits, false alarms, misses, wrong answers of each question
    hits, false_alarms, misses, wrong = counts.sum(dim=0).tolist()
    n = len(truth)
    low, high = bootstrap_interval(counts, _f1)
    return {
        **proportion("accuracy", int((said == truth).sum()), n),
        "precision": _ratio(hits, hits + false_alarms),
        "recall": _ratio(hits, hits + misses),
        "f1": float(_f1(counts.sum(dim=0, keepdim=True))),
        "f1_low": low,
        "f1_high": high,
        "yes_ratio": _ratio(float(said_yes.sum()), n),
        "yes_difference": _ratio(float(said_yes.sum() - true_yes.sum()), n),
        "false_positive_ratio": _ratio(false_alarms, wrong),
        **proportion("unparsed", int((said == UNPARSED).sum()), n),
        "count": float(n),
    }


class VerdictMetric(RowMetric):
    """A metric of answers that are read as yes or no; a subclass says the `width` of its rows.

    Raises:
        ConfigError: if the way of reading is unknown, told before the first batch.
    """

    width: ClassVar[int]

    def __init__(self, parsing: str = "strict", **kwargs: Any) -> None:
        super().__init__(columns=self.width, **kwargs)
        parse_yes_no("", parsing)
        self.parsing = parsing


class YesNoStats(VerdictMetric):
    """Accuracy, precision, recall, F1 and the habit of saying yes, of yes/no questions.

    `compute` gives floats: `accuracy`, `precision`, `recall`, `f1`; `yes_ratio`, the share of
    answers that say yes; `yes_difference`, (n_yes said − n_yes true)/N, 0 for a model that says
    yes as often as it should; `false_positive_ratio`, the share of yes among wrong answers to
    questions that call for no; `unparsed`, the share of answers that are neither; `count`.
    `<name>_low` and `<name>_high` bound 95 % intervals: Wilson's of proportions, a bootstrap's of
    F1. `parsing` says how answers are read (see `parse_yes_no`). An item seen twice counts once.
    Without items all are nan, and `count` is 0.

    POPE: Evaluating Object Hallucination in Large Vision-Language Models (EMNLP 2023).
    """

    width = 3

    def update(
        self, item_ids: Sequence[str], answers: Sequence[str], truths: Sequence[str]
    ) -> None:
        """Take n questions: their ids, the answers given, and yes or no.

        Raises:
            ValueError: if the lengths differ, or a truth is neither yes nor no.
        """
        check_lengths("YesNoStats", item_ids=item_ids, answers=answers, truths=truths)
        columns = [string_keys(item_ids), truth_verdicts(truths), verdicts(answers, self.parsing)]
        self.rows.append(torch.stack(columns, dim=1).to(self.device))

    def compute(self) -> dict[str, float]:
        """The statistics by name."""
        rows = self.all_rows()
        rows = rows[first_of_each(rows[:, ITEM])]
        return yes_no_stats(rows[:, TRUTH], rows[:, SAID])


def matthews(truth: Tensor, said: Tensor) -> float:
    """Matthews' correlation of yes/no answers with what is true, int64 (n,) each, in [-1, 1].

    An answer that is not yes counts as no. Where one of the two never changes it is 0, as of
    scikit-learn's `matthews_corrcoef`, which VidHalluc calls; without answers it is nan.
    """
    a, b = (truth == YES).double(), (said == YES).double()
    spread = (a.mean() * (1 - a.mean()) * b.mean() * (1 - b.mean())).sqrt()
    return float(((a * b).mean() - a.mean() * b.mean()) / spread) if spread else 0.0


def _f1(counts: Tensor) -> Tensor:
    """F1 = 2PR/(P+R) of sums (R,4) of hits, false alarms, misses: (R,); nan where all are 0."""
    hits, false_alarms, misses = counts[:, 0], counts[:, 1], counts[:, 2]
    return 2 * hits / (2 * hits + false_alarms + misses)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
