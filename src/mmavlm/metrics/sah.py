"""Semantic aggregation hallucination: what is true of one part of a long film, told of another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.intervals import bootstrap_interval, proportion
from mmavlm.metrics.parsing import KINDS
from mmavlm.metrics.rows import check_lengths, first_of_each
from mmavlm.metrics.yes_no import VerdictMetric, truth_verdicts, verdicts

ITEM, TRIPLET, KIND, RIGHT = range(4)  # columns of a row


class SAHRatio(VerdictMetric):
    """How much worse a model tells apart what happens elsewhere in the film than what never does.

    Each triplet asks of three captions whether they are right: a true one, one whose content is
    taken from another part of the same film, one whose content occurs nowhere in it. `compute`
    gives floats: `in_accuracy`, the share of triplets with the true and the in-video caption both
    right; `out_accuracy`, the same with the out-of-video caption; `sah_ratio`,
    (Out − In)/(1 − In), nan where In is 1; `count` triplets, and how many are `incomplete` and
    left out. Accuracies have 95 % Wilson intervals (`_low`, `_high`), the ratio a bootstrap's over
    triplets. A question seen twice counts once. Without triplets all are nan.

    ELV-Halluc (arXiv 2508.21496), section 3.
    """

    width = 4

    def update(
        self,
        item_ids: Sequence[str],
        triplets: Sequence[str],
        kinds: Sequence[str],
        answers: Sequence[str],
        truths: Sequence[str],
    ) -> None:
        """Take n questions: ids, the triplet of each, the kind of its caption (`KINDS`), answers.

        Raises:
            ValueError: if the lengths differ, a kind is unknown, or a truth is no yes and no no.
        """
        check_lengths("SAHRatio", item_ids=item_ids, triplets=triplets, kinds=kinds,
                      answers=answers, truths=truths)  # fmt: skip
        if unknown := set(kinds) - set(KINDS):
            raise ValueError(f"SAHRatio: captions are of the kinds {KINDS}, got {sorted(unknown)}")
        columns = [
            string_keys(item_ids),
            string_keys(triplets),
            torch.tensor([KINDS.index(kind) for kind in kinds], dtype=torch.int64),
            (verdicts(answers, self.parsing) == truth_verdicts(truths)).long(),
        ]
        self.rows.append(torch.stack(columns, dim=1).to(self.device))

    def compute(self) -> dict[str, float]:
        """Accuracies, ratio, bounds and counts by name."""
        rows = self.all_rows()
        rows = rows[first_of_each(rows[:, ITEM])]
        triplets, triplet = rows[:, TRIPLET].unique(return_inverse=True)
        right = rows.new_full((len(triplets), len(KINDS)), -1)
        right[triplet, rows[:, KIND]] = rows[:, RIGHT]
        whole = right[(right >= 0).all(dim=1)]
        # (n,3): in-video pair right, out-of-video pair right, one triplet
        units = torch.stack(
            [whole[:, 0] * whole[:, 1], whole[:, 0] * whole[:, 2], torch.ones_like(whole[:, 0])], 1
        ).double()
        n, inside, outside = len(whole), int(units[:, 0].sum()), int(units[:, 1].sum())
        low, high = bootstrap_interval(units, _ratio)
        return {
            "sah_ratio": (outside - inside) / (n - inside) if n > inside else float("nan"),
            "sah_ratio_low": low,
            "sah_ratio_high": high,
            **proportion("in_accuracy", inside, n),
            **proportion("out_accuracy", outside, n),
            "count": float(n),
            "incomplete": float(len(triplets) - n),
        }


def _ratio(sums: Tensor) -> Tensor:
    """(Out − In)/(1 − In) of sums (R,3): (R,); not finite where In is 1."""
    inside, outside, n = sums.unbind(dim=1)
    return (outside - inside) / (n - inside)
