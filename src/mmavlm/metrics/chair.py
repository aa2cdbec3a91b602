"""Objects a caption names that are not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.intervals import bootstrap_interval, proportion
from mmavlm.metrics.objects import ObjectVocabulary
from mmavlm.metrics.row_metric import RowMetric
from mmavlm.metrics.rows import check_lengths, first_of_each

ITEM, MENTIONS, WRONG, PRESENT, FOUND = range(5)  # columns of a row


class Chair(RowMetric):
    """CHAIR: how many captions, and how many of the objects they name, are hallucinated.

    An object is there if one of the item's references names it, by the vocabulary's words.
    `compute` gives floats: `chair_s`, the share of captions with at least one object that is not
    there; `chair_i`, the share of mentions that are of such objects; `object_recall`, the share
    of the objects that are there which the caption names (a caption that says nothing has no
    hallucinations); `mentions` and `count` captions. Intervals (`_low`, `_high`, 95 %) are Wilson's
    for `chair_s`, a bootstrap's over captions for `chair_i`. Without captions all are nan, without
    mentions `chair_i` is. An item seen twice counts once.

    `vocabulary` is an `ObjectVocabulary`, or the path of a file of one; None takes the built-in
    list, which is our own: its numbers are not those of MS COCO's list.

    Object Hallucination in Image Captioning (EMNLP 2018), section 3.
    """

    higher_is_better = False

    def __init__(
        self, vocabulary: ObjectVocabulary | str | Path | None = None, **kwargs: Any
    ) -> None:
        super().__init__(columns=5, **kwargs)
        if not isinstance(vocabulary, ObjectVocabulary):
            vocabulary = ObjectVocabulary.read(vocabulary)
        self.vocabulary = vocabulary

    def update(
        self,
        item_ids: Sequence[str],
        captions: Sequence[str],
        references: Sequence[Sequence[str]],
    ) -> None:
        """Take n captions: their ids, the texts, and what is known to be true of each film.

        Raises:
            ValueError: if the lengths differ.
        """
        check_lengths("Chair", item_ids=item_ids, captions=captions, references=references)
        counts = [
            self._counts(text, known) for text, known in zip(captions, references, strict=True)
        ]
        keys = string_keys(item_ids)[:, None]
        table = torch.tensor(counts, dtype=torch.int64).view(len(counts), 4)
        self.rows.append(torch.cat([keys, table], dim=1).to(self.device))

    def compute(self) -> dict[str, float]:
        """Shares, bounds and counts by name."""
        rows = self.all_rows()
        rows = rows[first_of_each(rows[:, ITEM])]
        sums = rows[:, MENTIONS:].sum(dim=0).tolist()
        low, high = bootstrap_interval(rows[:, MENTIONS:], _chair_i)
        return {
            **proportion("chair_s", int((rows[:, WRONG] > 0).sum()), len(rows)),
            "chair_i": sums[1] / sums[0] if sums[0] else float("nan"),
            "chair_i_low": low,
            "chair_i_high": high,
            "object_recall": sums[3] / sums[2] if sums[2] else float("nan"),
            "mentions": float(sums[0]),
            "count": float(len(rows)),
        }

    def _counts(self, caption: str, references: Sequence[str]) -> tuple[int, int, int, int]:
        """Mentions, wrong ones, objects that are there, and those of them that are named."""
        present = {name for text in references for name in self.vocabulary.mentions(text)}
        mentions = self.vocabulary.mentions(caption)
        wrong = sum(name not in present for name in mentions)
        return len(mentions), wrong, len(present), len(present & set(mentions))


def _chair_i(sums: Tensor) -> Tensor:
    """Wrong mentions over mentions, of sums (R,4): (R,)."""
    return sums[:, 1] / sums[:, 0]
