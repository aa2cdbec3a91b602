"""What answers to a set with planted bias say: how often a model tells of what it is used to.

The tasks of such a set (`movies.bias`) say whether the object asked for is there, and whether its
partner is, so that habit would have it there: `present_likely`, `absent_likely` and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmavlm.core.errors import DataError
from mmavlm.core.hashing import string_keys
from mmavlm.metrics.abstention import calibration_gaps, mean_gap
from mmavlm.metrics.parsing import YES
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.resampling import Score, mean
from mmavlm.metrics.yes_no import truth_verdicts, verdicts

ABSENT_LIKELY, ABSENT_UNLIKELY = "absent_likely", "absent_unlikely"
PRESENT_LIKELY, PRESENT_UNLIKELY = "present_likely", "present_unlikely"
TASKS = (PRESENT_LIKELY, PRESENT_UNLIKELY, ABSENT_LIKELY, ABSENT_UNLIKELY)


class Scored(NamedTuple):
    """A score as a function of sums (…,S), and what each of n items adds to them, (n,S)."""

    score: Score
    statistics: Tensor


def difference_of_means(sums: Tensor) -> Tensor:
    """The mean of one group of items less that of another: sums of values and numbers of both."""
    return mean(sums[..., :2]) - mean(sums[..., 2:])


# What is told of every model, and what it is.
SCORES: Mapping[str, str] = {
    "accuracy": "right answers",
    "both": "films with one object of a pair alone: both questions about the pair right",
    "false_yes_likely": "yes to objects that are absent though their partner is there",
    "false_yes_unlikely": "yes to objects that are absent, as is their partner",
    "habit": "the former less the latter: what the partner's presence alone adds",
    "yes_ratio": "yes among all answers, half of which should be",
    "calibration_error": "how far the probability of answers is from the share that is right",
}


def bias_scores(
    predictions: Sequence[Prediction], pair_of: Callable[[str], str]
) -> dict[str, Scored]:
    """The `SCORES` of n predictions; `pair_of` gives the pair that the object of an item is of.

    Answers are read strictly; what is neither yes nor no is wrong.

    Raises:
        DataError: if a prediction is of another task, or has no generated answer.
    """
    for row in predictions:
        if row.task not in TASKS or not row.answers:
            raise DataError(
                f"item {row.item_id!r} of task {row.task!r} is no answered question of a set with "
                f"planted bias, whose tasks are {', '.join(TASKS)}"
            )
    truth = truth_verdicts([row.truth for row in predictions])
    said = verdicts([row.answers[0].text for row in predictions])
    likely, unlikely, alone = (
        torch.tensor([row.task == task for row in predictions])
        for task in (ABSENT_LIKELY, ABSENT_UNLIKELY, PRESENT_UNLIKELY)
    )
    right, yes = said == truth, said == YES
    # An object without its partner and the partner that is not there are one pair of questions.
    keys = string_keys(f"{row.video_id}\n{pair_of(row.item_id)}" for row in predictions)
    _, pair = keys.unique(return_inverse=True)
    wrong = torch.zeros(len(keys), dtype=torch.long).index_add_(0, pair, (~right).long())
    everything = torch.ones_like(right)
    false_yes = torch.cat([_among(yes, likely), _among(yes, unlikely)], dim=1)
    return {
        "accuracy": Scored(mean, _among(right, everything)),
        "both": Scored(mean, _among(wrong[pair] == 0, alone)),
        "false_yes_likely": Scored(mean, false_yes[:, :2]),
        "false_yes_unlikely": Scored(mean, false_yes[:, 2:]),
        "habit": Scored(difference_of_means, false_yes),
        "yes_ratio": Scored(mean, _among(yes, everything)),
        "calibration_error": Scored(mean_gap, calibration_gaps(_confidence(predictions), right)),
    }


def _confidence(predictions: Sequence[Prediction]) -> Tensor:
    """The probability (n,) with which each answer was generated."""
    log_probs = torch.tensor([row.answers[0].log_prob for row in predictions])
    return log_probs.exp().clamp(max=1)


def _among(values: Tensor, members: Tensor) -> Tensor:
    """Statistics (n,2) whose `mean` is that of bool values (n,) over the members (n,)."""
    return torch.stack([values & members, members], dim=1).double()
