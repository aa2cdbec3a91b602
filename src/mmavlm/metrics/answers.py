"""Top-k accuracy of answers, over items and over videos, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mmavlm.errors import ConfigError
from mmavlm.hashing import string_keys
from mmavlm.metrics.intervals import wilson_interval
from mmavlm.metrics.rows import RowMetric, check_lengths, first_of_each

Compare = Literal["whole", "first_word"]  # what of an answer is compared with the truth
Rule = Literal["whole", "first_word", "caption"]  # a caption is scored beside all references

ITEM, VIDEO, ASKED, ANSWER, RANK = range(5)  # columns of a row
_NO_ANSWER = -1  # keys are never negative
_NO_RANK = torch.iinfo(torch.int64).max


def normalise_answer(text: str, compare: Compare = "whole") -> str:
    """The text as it is compared: lower case, no outer spaces, inner ones collapsed.

    With `compare` "first_word" an answer counts by its first word, as MSVD's and MSRVTT's do.
    """
    words = text.lower().split()
    return " ".join(words[:1] if compare == "first_word" else words)


def is_right(
    answers: Sequence[str], truth: str, references: Sequence[str] = (), compare: Rule = "whole"
) -> bool | None:
    """Whether the best answer, the first, is right; None for captions, better or worse as they are.

    Without an answer it is wrong.
    """
    if compare == "caption":
        return None
    given = normalise_answer(answers[0], compare) if answers else ""
    return given in map(normalise_answer, (truth, *references))


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
    top_k: Sequence[int] = (1, 5),
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


def _proportion(name: str, right: Tensor) -> dict[str, float]:
    low, high = wilson_interval(int(right.sum()), len(right))
    return {name: _mean(right), f"{name}_low": low, f"{name}_high": high}


def _mean(right: Tensor) -> float:
    return float(right.double().mean())
