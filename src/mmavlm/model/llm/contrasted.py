"""Answers decoded from two views: what the other one says is taken off, token by token.

Shapes: B rows, N answers in search, C candidates a row, A answer tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from mmavlm.core.contrast import Contrast
from mmavlm.model.llm.layout import Asked, Candidates, Search, Steps, Stretch, token_log_probs

# Log-probability of a candidate that contrastive decoding would never say, beside its plain one.
NEVER = -10_000.0


@dataclass(frozen=True)
class Other:
    """The other view of the rows that are asked, and how it counts; None: there is no other.

    `past` is what was read of it before, where it is of a session.
    """

    asked: Asked | None
    contrast: Contrast
    past: Any = None


class ContrastScores(LogitsProcessor):
    """Takes the scores of another view, read along with the answers, off those of the search.

    An answer goes on from whichever beam of its row it begins with, so that the other view keeps a
    cache of its own and reads each token once.
    """

    def __init__(self, contrast: Contrast, steps: Steps | None, rows: int) -> None:
        self._contrast = contrast
        self._steps = steps
        self._rows = rows
        self._ids: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (N,V) of the next token behind ids (N,L)."""
        if self._steps is None:
            return self._contrast(scores, scores)
        if self._ids is None:
            other = self._steps.begin(len(scores) // self._rows)
        else:
            parents = _parents(self._ids, input_ids[:, :-1], self._rows)
            other = self._steps.go_on(parents, input_ids[:, -1:])
        self._ids = input_ids
        return self._contrast(scores, other.float())


def search_against(search: Search, contrast: Contrast, steps: Steps | None, rows: int) -> Search:
    """The search with the other view of its rows taken off, before any penalty."""
    scores = ContrastScores(contrast, steps, rows)
    return replace(search, processors=LogitsProcessorList([scores, *search.processors]))


def contrasted(
    candidates: Candidates,
    seen: Iterable[Stretch],
    other: Iterable[Stretch] | None,
    contrast: Contrast,
) -> Tensor:
    """Summed log-probability (B,C) of candidates, by their logits under both views, or under one.

    Contrastive decoding would never say a candidate with a token that is not plausible. Those have
    `NEVER` more than without contrast: they stand below all others, in the plain order.
    """
    scores = torch.zeros(candidates.ids.shape[:2], device=candidates.ids.device)
    plain = scores.clone()
    pairs = zip(seen, repeat(None)) if other is None else zip(seen, other, strict=True)
    for (part, columns, logits), less in pairs:
        ids, real = candidates.ids[:, part, columns], candidates.mask[:, part, columns]
        logits = logits.float()
        held = contrast(logits, logits if less is None else less.logits.float())
        for total, values in ((scores, held), (plain, logits)):
            total[:, part] += token_log_probs(values, ids).masked_fill(~real, 0).sum(dim=2)
    return torch.where(scores.isneginf(), plain + NEVER, scores)


def _parents(before: Tensor, begun: Tensor, rows: int) -> Tensor:
    """Which of the answers (N,L) each of the beginnings (N,L) is, among those of the same row."""
    each = len(before) // rows
    old, new = (ids.view(rows, each, -1) for ids in (before, begun))
    same = (new[:, :, None] == old[:, None]).all(dim=-1)  # (rows,each,each)
    first = torch.arange(rows, device=same.device)[:, None] * each
    return (first + same.int().argmax(dim=-1)).flatten()
