"""What a count of right answers says about a model: intervals, and a test for two models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple, overload

import torch
from torch import Tensor


@overload
def wilson_interval(
    correct: float, total: float, confidence: float = ...
) -> tuple[float, float]: ...
@overload
def wilson_interval(
    correct: Tensor, total: Tensor, confidence: float = ...
) -> tuple[Tensor, Tensor]: ...
def wilson_interval(
    correct: Tensor | float, total: Tensor | float, confidence: float = 0.95
) -> tuple[Tensor, Tensor] | tuple[float, float]:
    """The score interval of a proportion: bounds of `correct`/`total` (Wilson, 1927).

    Counts are two tensors of any shapes that broadcast, or two numbers; the bounds come as
    tensors (float64) or numbers likewise. With a total of 0 nothing is known: 0 to 1.

    Raises:
        ValueError: unless 0 ≤ correct ≤ total and 0 < confidence < 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"wilson_interval: confidence must lie between 0 and 1, got {confidence}")
    k = torch.as_tensor(correct, dtype=torch.float64)
    n = torch.as_tensor(total, dtype=torch.float64)
    if bool(((k < 0) | (k > n)).any()):
        raise ValueError(
            f"wilson_interval: correct must lie between 0 and total, got {correct} of {total}"
        )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * (k * (n - k) / n.clamp(min=1) + z * z / 4).sqrt()
    # The bounds of 0/n and n/n are 0 and 1 exactly, which rounding would miss.
    low = torch.where(k == 0, 0.0, (centre - half).clamp(min=0))
    high = torch.where(k == n, 1.0, (centre + half).clamp(max=1))
    if isinstance(correct, Tensor) or isinstance(total, Tensor):
        return low, high
    return float(low), float(high)


class McNemar(NamedTuple):
    """Items only the first model got right, items only the second did, and the p-value."""

    only_a: int
    only_b: int
    p_value: float


def paired_mcnemar(
    correct_a: Tensor | Sequence[bool], correct_b: Tensor | Sequence[bool]
) -> McNemar:
    """The exact two-sided test whether two models are right equally often (McNemar, 1947).

    Takes whether each of n items was answered right, (n,) bool, in the same order for both
    models. The items on which they differ are a fair coin's throws under the null hypothesis:
    p = min(1, 2·P[Binomial(only_a + only_b, ½) ≤ min(only_a, only_b)]).

    Raises:
        ValueError: if the two do not have the same length.
    """
    a, b = torch.as_tensor(correct_a).bool().cpu(), torch.as_tensor(correct_b).bool().cpu()
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(
            "paired_mcnemar: both models must answer the same items, "
            f"got shapes {tuple(a.shape)} and {tuple(b.shape)}"
        )
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    throws = only_a + only_b
    k = torch.arange(min(only_a, only_b) + 1, dtype=torch.float64)
    log_choose = math.lgamma(throws + 1) - torch.lgamma(k + 1) - torch.lgamma(throws - k + 1)
    tail = float((log_choose - throws * math.log(2)).logsumexp(dim=0).exp())
    return McNemar(only_a, only_b, min(1.0, 2 * tail))
