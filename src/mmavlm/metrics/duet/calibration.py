"""Scores of frames as probabilities: how far they are off, and what puts them right.

Shapes: N frames.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

TEMPERATURES = (0.05, 20.0)  # beyond them a head tells the classes apart perfectly, or not at all


class Calibration(NamedTuple):
    """The probability of a margin m is σ(m / temperature + shift)."""

    temperature: float
    shift: float

    @property
    def at_its_bound(self) -> bool:
        """Whether a temperature further out would fit better."""
        return min(abs(self.temperature / bound - 1) for bound in TEMPERATURES) < 1e-6


def calibration_of(margins: Tensor, labels: Tensor) -> Calibration | None:
    """The calibration under which the labels (N) of margins (N) are the most probable.

    Both classes are taken to be there once more than they are, in parts that are spread over all
    frames, so that a head without a mistake does not become infinitely sure (Platt 1999; Lin, Lin
    and Weng 2007). The loss is convex in 1/temperature and shift; the temperature is kept in
    `TEMPERATURES`, so that the order of frames stays. None where only one class is there, or a
    margin is no finite number, which says nothing of a temperature.
    """
    x, y = (value.detach().cpu().double().numpy() for value in (margins, labels))
    ones = int(y.sum())
    if not 0 < ones < len(y) or not np.isfinite(x).all():
        return None
    targets = np.where(y > 0, (ones + 1) / (ones + 2), 1 / (len(y) - ones + 2))

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        logits = x * point[0] + point[1]
        wrong = (expit(logits) - targets) / len(x)
        value = (np.logaddexp(0.0, logits) - targets * logits).mean()
        return float(value), np.array([wrong @ x, wrong.sum()])

    coldest, hottest = TEMPERATURES
    found = minimize(
        loss,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(1 / hottest, 1 / coldest), (None, None)],
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000},
    )
    slope, shift = map(float, found.x)
    return Calibration(1 / slope, shift)
