"""Which class was answered where another was true."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmavlm.errors import ConfigError, DataError
from mmavlm.metrics.answers import normalise_answer


def confusion(truths: Sequence[str], answers: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Counts (C,C+1), int64: true class in rows, answered class in columns, others in the last.

    Texts are compared as `normalise_answer` leaves them.

    Raises:
        ConfigError: if two classes are the same text.
        DataError: if a truth is none of the classes.
        ValueError: if there are not as many answers as truths.
    """
    if len(truths) != len(answers):
        raise ValueError(f"confusion: got {len(truths)} truths but {len(answers)} answers")
    index = {normalise_answer(name): i for i, name in enumerate(classes)}
    if len(index) < len(classes):
        raise ConfigError(f"confusion: the classes {list(classes)} hold the same text twice")
    rows = [index.get(normalise_answer(truth), -1) for truth in truths]
    if -1 in rows:
        raise DataError(
            f"confusion: the truth {truths[rows.index(-1)]!r} is none of the classes "
            f"{list(classes)}; give all classes that occur"
        )
    other = len(classes)
    columns = [index.get(normalise_answer(answer), other) for answer in answers]
    flat = torch.tensor(rows, dtype=torch.int64) * (other + 1) + torch.tensor(
        columns, dtype=torch.int64
    )
    return flat.bincount(minlength=other * (other + 1)).view(other, other + 1)
