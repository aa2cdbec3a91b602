"""Recall at k between films and texts, in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.row_metric import RowMetric
from mmavlm.metrics.rows import check_lengths, first_of_each

_CHUNK = 1024  # queries scored at once; bounds memory at 1024 × N similarities


def better_negatives(queries: Tensor, candidates: Tensor, keys: Tensor) -> Tensor:
    """How many wrong candidates score at least as high as the best right one, int64 (N,).

    Query i (N,E) and candidate j (N,E) belong together where keys (N,) i and j are equal. Ties
    count against the query, so features that are all alike find nothing.
    """
    counts = []
    for query, key in zip(queries.split(_CHUNK), keys.split(_CHUNK), strict=True):
        scores = query @ candidates.T
        right = key[:, None] == keys
        best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        counts.append(((scores >= best) & ~right).sum(dim=1))
    return torch.cat(counts)


def retrieval_recall(
    video: Tensor, text: Tensor, text_keys: Tensor, ks: Sequence[int] = (1, 5)
) -> dict[str, float]:
    """Recall at each k of films (N,E) and texts (N,E); texts with equal keys (N,) are equal hits.

    A query is a hit at k if fewer than k wrong candidates score as high as its best right one.
    `chance_r1` is the expected recall at 1 of a random order, `count` is N.
    """
    n = len(text_keys)
    if n == 0:
        names = [f"{way}_r{k}" for way in ("v2t", "t2v") for k in ks]
        return {**dict.fromkeys([*names, "chance_r1"], float("nan")), "count": 0.0}
    values: dict[str, float] = {}
    for way, queries, candidates in (("v2t", video, text), ("t2v", text, video)):
        wrong = better_negatives(queries, candidates, text_keys)
        for k in ks:
            values[f"{way}_r{k}"] = float((wrong < k).double().mean())
    sizes = text_keys.unique(return_counts=True)[1]
    values["chance_r1"] = float((sizes.double() ** 2).sum() / n**2)
    values["count"] = float(n)
    return values


class RetrievalRecall(RowMetric):
    """Which text belongs to a film, and which film to a text, among all items seen.

    `compute` gives floats: `v2t_r<k>` and `t2v_r<k>` for each k, `chance_r1`, `count`. Items whose
    texts are equal are hits for each other; ties count as misses; an item seen twice counts once.

    Raises:
        ValueError: if `ks` holds anything below 1.
    """

    features: list[Tensor]

    def __init__(self, ks: Sequence[int] = (1, 5), **kwargs: Any) -> None:
        super().__init__(columns=2, **kwargs)
        if any(k < 1 for k in ks):
            raise ValueError(f"RetrievalRecall: ks counts candidates from 1, got {list(ks)}")
        self.ks = tuple(ks)
        # Flat, for a process without items does not know their width when states are gathered.
        self.add_state("features", default=[], dist_reduce_fx="cat")

    def update(
        self, video: Tensor, text: Tensor, item_ids: Sequence[str], texts: Sequence[str]
    ) -> None:
        """Take B items: features of films and texts (B,E), item ids, and the texts themselves."""
        check_lengths("RetrievalRecall", video=video, text=text, item_ids=item_ids, texts=texts)
        if video.shape != text.shape or video.ndim != 2:
            raise ValueError(
                "RetrievalRecall: video and text must both be (B,E), "
                f"got {tuple(video.shape)} and {tuple(text.shape)}"
            )
        rows = torch.stack([string_keys(item_ids), string_keys(texts)], dim=1)
        self.rows.append(rows.to(self.device))
        pairs = torch.stack([video.detach(), text.detach()], dim=1)
        self.features.append(pairs.to(self.device, torch.float32).flatten())

    def compute(self) -> dict[str, float]:
        """Recalls, chance and count by name."""
        rows = self.all_rows()
        if len(rows) == 0:
            return retrieval_recall(rows, rows, rows[:, 1], self.ks)
        video, text = dim_zero_cat(self.features).view(len(rows), 2, -1).unbind(dim=1)
        first = first_of_each(rows[:, 0])
        return retrieval_recall(video[first], text[first], rows[first, 1], self.ks)
