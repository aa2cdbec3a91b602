"""The scores of captions as a metric; `captions.py` scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.captions import caption_scores
from mmavlm.metrics.row_metric import RowMetric
from mmavlm.metrics.rows import check_lengths

ITEM, VIDEO, LENGTH = range(3)  # columns of a row


class CaptionScores(RowMetric):
    """CIDEr, METEOR, BLEU-4 and ROUGE-L over all captions seen by all processes.

    `compute` gives the scores of `score_captions` as floats, `<name>_low` and `<name>_high`, the
    bounds of the 95 % bootstrap interval over videos, and `count`. An item seen twice counts once.
    """

    texts: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(columns=3, **kwargs)
        self.add_state("texts", default=[], dist_reduce_fx="cat")

    def update(
        self,
        item_ids: Sequence[str],
        video_ids: Sequence[str],
        captions: Sequence[str],
        references: Sequence[Sequence[str]],
    ) -> None:
        """Take n items: their ids, their videos', the captions generated, all references."""
        check_lengths(
            "CaptionScores", item_ids=item_ids, video_ids=video_ids, captions=captions,
            references=references,
        )  # fmt: skip
        coded = [
            json.dumps([caption, list(texts)]).encode()
            for caption, texts in zip(captions, references, strict=True)
        ]
        lengths = torch.tensor([len(text) for text in coded], dtype=torch.int64)
        rows = torch.stack([string_keys(item_ids), string_keys(video_ids), lengths], dim=1)
        self.rows.append(rows.to(self.device))
        self.texts.append(torch.tensor(list(b"".join(coded)), dtype=torch.uint8).to(self.device))

    def compute(self) -> dict[str, float]:
        """Scores, bounds and count by name; the first process scores, the others wait for it."""
        if not self._is_synced:
            return self._scores()
        result: list[Any] = [None]
        if torch.distributed.get_rank() == 0:
            result = [_caught(self._scores)]
        torch.distributed.broadcast_object_list(result)
        if isinstance(result[0], Exception):
            raise result[0]
        return result[0]

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows and texts of all processes."""
        if isinstance(self.texts, list) and not self.texts:
            self.texts.append(torch.empty(0, dtype=torch.uint8, device=self.device))
        super().sync(*args, **kwargs)

    def _scores(self) -> dict[str, float]:
        rows = self.all_rows().cpu()
        coded = dim_zero_cat(self.texts).cpu().numpy().tobytes() if len(rows) else b""
        ends = accumulate(rows[:, LENGTH].tolist(), initial=0)
        items = [json.loads(coded[start:end]) for start, end in pairwise(ends)]
        captions, references = [caption for caption, _ in items], [texts for _, texts in items]
        return caption_scores(rows[:, ITEM], rows[:, VIDEO], captions, references)


def _caught(task: Any) -> Any:
    """What a task returns or raises: the other processes must not wait for what never comes."""
    try:
        return task()
    except Exception as error:
        return error
