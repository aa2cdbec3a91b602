"""Which class was answered where another was true."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmavlm.core.errors import ConfigError
from mmavlm.metrics.rules import normalise_answer


def confusion(truths: Sequence[str], answers: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Counts (C,C+1), int64: true class in rows, answered class in columns, others in the last.

    Texts are compared as `normalise_answer` leaves them. What is truly none of the classes has no
    row and is not counted.

    Raises:
        ConfigError: if two classes are the same text (see `unlike`).
        ValueError: if there are not as many answers as truths.
    """
    if len(truths) != len(answers):
        raise ValueError(f"confusion: got {len(truths)} truths but {len(answers)} answers")
    index = {normalise_answer(name): i for i, name in enumerate(classes)}
    if len(index) < len(classes):
        raise ConfigError(f"confusion: the classes {list(classes)} hold the same text twice")
    other = len(classes)
    places = [
        index[true] * (other + 1) + index.get(normalise_answer(answer), other)
        for truth, answer in zip(truths, answers, strict=True)
        if (true := normalise_answer(truth)) in index
    ]
    flat = torch.tensor(places, dtype=torch.int64)
    return flat.bincount(minlength=other * (other + 1)).view(other, other + 1)


def unlike(classes: Sequence[str]) -> list[str]:
    """The classes without those that read like one before (see `normalise_answer`)."""
    first: dict[str, str] = {}
    for name in classes:
        first.setdefault(normalise_answer(name), name)
    return list(first.values())
