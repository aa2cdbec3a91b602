"""Pairs of a question that is true of a film and one that is hallucinated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.intervals import proportion
from mmavlm.metrics.parsing import says
from mmavlm.metrics.rows import check_lengths, first_of_each
from mmavlm.metrics.yes_no import VerdictMetric, truth_verdicts, verdicts

ITEM, PAIR, HALLUCINATED, RIGHT, SAYS_YES, SAYS_NO = range(6)  # columns of a row


class PairedAccuracy(VerdictMetric):
    """Accuracy on basic questions, on hallucinated ones, and on both of a pair (VideoHallucer).

    `compute` gives floats: `basic` and `hallucinated`, the accuracies over pairs of which both
    questions were seen; `accuracy`, the share of pairs with both right; each with the `_low` and
    `_high` of its 95 % Wilson interval; `count`, the number of pairs; and `incomplete`, that of
    pairs of which one question is missing (an unreadable film, a limit on items) and which count
    for nothing. A question seen twice counts once. Without pairs the accuracies are nan.

    With `parsing="videohallucer"` answers are read as that benchmark's scripts do, and its bias
    statistics are added as they are published, `published_yes_difference` and
    `published_false_positive_ratio`. They are wrong: evaluation_bias.py looks for a yes in the
    basic answer where it should in the hallucinated one, and for a no the other way round. For
    the right ones see `YesNoStats`.

    VideoHallucer: Evaluating Intrinsic and Extrinsic Hallucinations (arXiv 2406.16338), section 3.
    """

    width = 6

    def update(
        self,
        item_ids: Sequence[str],
        pairs: Sequence[str],
        hallucinated: Sequence[bool],
        answers: Sequence[str],
        truths: Sequence[str],
    ) -> None:
        """Take n questions: ids, the pair of each, whether it is the hallucinated one, answers.

        Raises:
            ValueError: if the lengths differ, or a truth is neither yes nor no.
        """
        check_lengths("PairedAccuracy", item_ids=item_ids, pairs=pairs, hallucinated=hallucinated,
                      answers=answers, truths=truths)  # fmt: skip
        columns = [
            string_keys(item_ids),
            string_keys(pairs),
            torch.tensor(list(hallucinated), dtype=torch.int64),
            (verdicts(answers, self.parsing) == truth_verdicts(truths)).long(),
            torch.tensor([says("yes", text) for text in answers], dtype=torch.int64),
            torch.tensor([says("no", text) for text in answers], dtype=torch.int64),
        ]
        self.rows.append(torch.stack(columns, dim=1).to(self.device))

    def compute(self) -> dict[str, float]:
        """Accuracies, bounds and counts by name."""
        rows = self.all_rows()
        rows = rows[first_of_each(rows[:, ITEM])]
        basic, hallucinated, incomplete = both_of_each(rows)
        right = [basic[:, RIGHT].bool(), hallucinated[:, RIGHT].bool()]
        n = len(basic)
        values = {
            **proportion("accuracy", int((right[0] & right[1]).sum()), n),
            **proportion("basic", int(right[0].sum()), n),
            **proportion("hallucinated", int(right[1].sum()), n),
            "count": float(n),
            "incomplete": float(incomplete),
        }
        if self.parsing == "videohallucer":
            values |= published_bias(basic[:, SAYS_YES].bool(), hallucinated[:, SAYS_NO].bool())
        return values


def both_of_each(rows: Tensor) -> tuple[Tensor, Tensor, int]:
    """Basic and hallucinated rows (p,6) of the complete pairs, in one order; how many are not."""
    pairs, pair = rows[:, PAIR].unique(return_inverse=True)
    place = rows.new_full((len(pairs), 2), -1)
    place[pair, rows[:, HALLUCINATED]] = torch.arange(len(rows), device=rows.device)
    whole = (place >= 0).all(dim=1)
    basic, hallucinated = place[whole].unbind(dim=1)
    return rows[basic], rows[hallucinated], int((~whole).sum())


def published_bias(basic_yes: Tensor, hallucinated_no: Tensor) -> dict[str, float]:
    """Bias as VideoHallucer's evaluation_bias.py counts it, its mistake included.

    Takes, for each pair (p,), whether the basic answer holds a yes, and the hallucinated one a no.
    """
    b, h = basic_yes, hallucinated_no
    n_yes = int(b.sum() + (b & ~h).sum())  # the second should be yes in hallucinated answers
    wrong = int((~b).sum() + (~h).sum())
    pairs = len(b)
    return {
        "published_yes_difference": (n_yes - pairs) / (2 * pairs) if pairs else float("nan"),
        # 0 where nothing is wrong, as published
        "published_false_positive_ratio": int((b & ~h).sum()) / wrong if wrong else 0.0,
    }
