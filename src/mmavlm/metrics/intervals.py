"""What a count of right answers says about a model: intervals, and a test for two models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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


def proportion(name: str, right: int, total: int) -> dict[str, float]:
    """A proportion and its 95 % Wilson interval as `name`, `name_low` and `name_high`.

    With a total of 0 it is nan, between 0 and 1.
    """
    low, high = wilson_interval(right, total)
    value = right / total if total else math.nan
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def bootstrap_interval(
    units: Tensor,
    statistic: Callable[[Tensor], Tensor],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bounds of a statistic of sums, for n units drawn again with replacement.

    `units` (n,k) holds what each of them adds, and `statistic` takes sums (R,k) to values (R,).
    Resamples in which it is undefined (nan) are left out; without any left both bounds are nan
    (Efron, 1979).
    """
    n = len(units)
    if n == 0:
        return math.nan, math.nan
    generator = torch.Generator().manual_seed(seed)
    units = units.double().cpu()
    # one resample at a time would loop, all at once would hold R·n numbers for each of k sums
    drawn = (
        units[torch.randint(n, (len(part), n), generator=generator)].sum(dim=1)
        for part in torch.arange(resamples).split(max(1, 1_000_000 // n))
    )
    values = statistic(torch.cat(list(drawn)))
    values = values[values.isfinite()]
    if len(values) == 0:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = values.quantile(torch.tensor([tail, 1 - tail], dtype=values.dtype)).tolist()
    return low, high


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
