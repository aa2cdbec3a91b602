"""Top-k accuracy of answers, over items and over videos, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.intervals import wilson_interval
from mmavlm.metrics.rows import check_lengths, first_of_each
from mmavlm.metrics.rules import Compare, normalise_answer

ITEM, VIDEO, ASKED, ANSWER, RANK = range(5)  # columns of a row
TOP_K = (1, 5)
_NO_ANSWER = -1  # keys are never negative
_NO_RANK = torch.iinfo(torch.int64).max


def answer_rows(
    item_ids: Sequence[str],
    video_ids: Sequence[str],
    answers: Sequence[Sequence[str]],
    truths: Sequence[str],
    compare: Compare = "whole",
    references: Sequence[Sequence[str]] | None = None,
    prompts: Sequence[str] | None = None,
) -> Tensor:
    """One row an item, int64 (n,5), for `summarise`.

    It holds keys of item, of video, of truth and prompt together, of the best answer, and the rank
    of a right one. Right are the truth and an item's `references`. The rank counts from 0 and is
    the largest integer where no answer is right.
    """
    wanted = [normalise_answer(truth) for truth in truths]
    others = [()] * len(truths) if references is None else references
    right = [
        {truth, *map(normalise_answer, texts)} for truth, texts in zip(wanted, others, strict=True)
    ]
    given = [[normalise_answer(text, compare) for text in best_first] for best_first in answers]
    best = [int(string_keys(best_first[:1])) if best_first else _NO_ANSWER for best_first in given]
    rank = [
        next((place for place, text in enumerate(best_first) if text in texts), _NO_RANK)
        for best_first, texts in zip(given, right, strict=True)
    ]
    asked = wanted if prompts is None else list(map("\n".join, zip(wanted, prompts, strict=True)))
    keys = [string_keys(item_ids), string_keys(video_ids), string_keys(asked)]
    return torch.stack([*keys, *torch.tensor([best, rank], dtype=torch.int64).unbind()], dim=1)


def summarise(rows: Tensor, top_k: Sequence[int]) -> dict[str, float]:
    """Accuracies and intervals of rows (n,5), in which an item may occur more than once."""
    rows = rows[first_of_each(rows[:, ITEM])]
    voted = video_votes(rows)
    return {
        **{
            name: value
            for k in dict.fromkeys((1, *top_k))
            for name, value in _proportion(f"top{k}", rows[:, RANK] < k).items()
        },
        "count": float(len(rows)),
        **_proportion("video_top1", voted),
        "video_count": float(len(voted)),
    }


def video_votes(rows: Tensor) -> Tensor:
    """Whether the answer most of a video's items give is right, bool, one a question and truth.

    Rows (n,5) hold distinct items, sorted by item; the votes come in the order of the keys of
    video, and of truth and prompt. Of answers given equally often, that of the first item counts,
    which does not depend on batches or processes.
    """
    ballots, ballot = rows[:, [VIDEO, ASKED]].unique(dim=0, return_inverse=True)
    choices, choice = torch.stack([ballot, rows[:, ANSWER]], dim=1).unique(
        dim=0, return_inverse=True
    )
    votes = choice.bincount(minlength=len(choices))[choice]
    # Per video the largest votes·n − index: most votes first, then the earliest item.
    preference = votes * len(rows) - torch.arange(len(rows), device=rows.device)
    highest = preference.new_full((len(ballots),), -len(rows) - 1)
    highest = highest.scatter_reduce(0, ballot, preference, "amax")
    winner = preference == highest[ballot]
    right = torch.zeros(len(ballots), dtype=torch.bool, device=rows.device)
    right[ballot[winner]] = rows[winner, RANK] == 0
    return right


def answer_accuracy(
    item_ids: Sequence[str],
    video_ids: Sequence[str],
    answers: Sequence[Sequence[str]],
    truths: Sequence[str],
    top_k: Sequence[int] = TOP_K,
    compare: Compare = "whole",
    references: Sequence[Sequence[str]] | None = None,
    prompts: Sequence[str] | None = None,
) -> dict[str, float]:
    """What `AnswerAccuracy` computes, for answers at hand."""
    check_lengths(
        "answer_accuracy", item_ids=item_ids, video_ids=video_ids, answers=answers, truths=truths
    )
    rows = answer_rows(item_ids, video_ids, answers, truths, compare, references, prompts)
    return summarise(rows, top_k)


def unparsed_share(items: Tensor, unparsed: Tensor) -> dict[str, float]:
    """What `UnparsedRate` computes; `items` (n,) are keys, an item counting once."""
    if not len(items):
        return {}
    once = unparsed[first_of_each(items)]
    return {"unparsed": _mean(once), "parsed_of": float(len(once))}


def _proportion(name: str, right: Tensor) -> dict[str, float]:
    low, high = wilson_interval(int(right.sum()), len(right))
    return {name: _mean(right), f"{name}_low": low, f"{name}_high": high}


def _mean(right: Tensor) -> float:
    return float(right.double().mean())
