"""Margins of frames as probabilities."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from mmavlm.metrics.duet.calibration import TEMPERATURES, calibration_of


def drawn(temperature, shift, frames=20000, seed=0):
    """Margins, and labels that are 1 as often as this calibration says."""
    generator = torch.Generator().manual_seed(seed)
    margins = 3 * torch.randn(frames, generator=generator)
    true = (margins / temperature + shift).sigmoid()
    return margins, (torch.rand(frames, generator=generator) < true).long()


def smoothed_loss(margins, labels, slopes, shifts):
    """Platt's loss of each slope with each shift, written out."""
    ones, zeros = int(labels.sum()), int((labels == 0).sum())
    targets = torch.where(labels == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2)).double()
    logits = slopes[:, None, None] * margins.double() + shifts[:, None]
    loss = F.binary_cross_entropy_with_logits(logits, targets.expand_as(logits), reduction="none")
    return loss.mean(dim=-1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 1.5])
def test_the_calibration_that_drew_the_labels_is_found(temperature, shift):
    found = calibration_of(*drawn(temperature, shift))
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.shift == pytest.approx(shift, abs=0.1)


def test_scores_that_were_too_sure_and_shifted_become_probabilities():
    margins, labels = drawn(2.5, -2.0)
    fit = calibration_of(margins[::2], labels[::2])
    held_out = margins[1::2], labels[1::2]
    before = binary_calibration_error(held_out[0].sigmoid(), held_out[1])
    calibrated = (held_out[0] / fit.temperature + fit.shift).sigmoid()
    assert binary_calibration_error(calibrated, held_out[1]) < 0.02 < 0.2 < before


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    frames=st.lists(
        st.tuples(st.floats(-30, 30), st.booleans()), min_size=2, max_size=40
    )
)  # fmt: skip
def test_no_other_calibration_has_a_lower_loss(frames):
    margins, labels = torch.tensor(frames, dtype=torch.float64).T
    assume(0 < labels.sum() < len(labels))
    found = calibration_of(margins, labels)
    coldest, hottest = TEMPERATURES
    assert coldest * 0.999 <= found.temperature <= hottest * 1.001
    slopes = torch.linspace(1 / hottest, 1 / coldest, 200, dtype=torch.float64)
    shifts = torch.linspace(-10, 10, 201, dtype=torch.float64)
    own = torch.tensor([[1 / found.temperature], [found.shift]], dtype=torch.float64)
    best = smoothed_loss(margins, labels, *own).item()
    assert best <= smoothed_loss(margins, labels, slopes, shifts).min().item() + 1e-7


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("sign", [1, -1], ids=["never wrong", "always wrong"])
def test_a_head_that_is_never_or_always_right_is_calibrated_within_bounds(scale, sign):
    labels = torch.tensor([0, 1] * 50)
    found = calibration_of(sign * scale * (2.0 * labels - 1), labels)
    assert TEMPERATURES[0] * 0.999 <= found.temperature <= TEMPERATURES[1] * 1.001
    assert abs(found.shift) < 10
    assert found.at_its_bound or (sign == 1 and scale == 1.0)


@pytest.mark.parametrize("label", [0, 1])
def test_frames_of_one_class_say_nothing(label):
    assert calibration_of(torch.randn(9), torch.full((9,), label)) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_margins_that_are_no_numbers_say_nothing(value):
    assert calibration_of(torch.tensor([0.0, 1.0, value]), torch.tensor([0, 1, 1])) is None
