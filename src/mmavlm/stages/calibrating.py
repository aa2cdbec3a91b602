"""Heads that are fitted to the frames of a validation, and what the log says of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping

from torch import Tensor

from mmavlm.metrics.duet.calibration import calibration_of
from mmavlm.model.heads import FrameHeads

log = logging.getLogger(__name__)

Labelled = Mapping[str, tuple[Tensor, Tensor]]  # head → margins (N,) and labels (N,) of frames

_UNFIT = (
    "is not calibrated: its frames of validation are all of one class, or its scores no numbers, "
    "which says nothing of how sure it should be; validate on films with both classes"
)
_AT_ITS_BOUND = (
    "is calibrated at the bound of temperatures: it tells the classes of validation apart "
    "perfectly, or not at all"
)


def calibrate(heads: FrameHeads, frames: Labelled, told: MutableMapping[str, str]) -> None:
    """Fit heads to frames, of which every process has the same ones, and so finds the same.

    `told` is what the log said of each head before; it does not say so again.
    """
    for name, (margins, labels) in frames.items():
        fit = calibration_of(margins, labels)
        if fit is not None:
            heads.calibrate(name, fit.temperature, fit.shift)
        note = _UNFIT if fit is None else _AT_ITS_BOUND if fit.at_its_bound else ""
        if note and note != told.get(name):
            log.warning("the head %s %s", name, note)
        told[name] = note
