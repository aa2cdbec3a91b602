import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.model.alignment import (
    SigmoidLoss,
    equal_texts_info_nce,
    info_nce,
    sigmoid_loss,
    symmetric_info_nce,
)

DISTINCT = torch.eye(4, dtype=torch.bool)


def batch(size: int, texts: int, seed: int):
    """Logits (N,N) in double precision, and which of N texts, of `texts` kinds, are equal."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(texts, (size,), generator=generator)
    logits = 5 * torch.randn(size, size, generator=generator, dtype=torch.double)
    return logits, kinds[:, None] == kinds


batches = st.builds(batch, st.integers(1, 7), st.integers(1, 7), st.integers(0, 10_000))


def slow_info_nce(rows: list[list[float]]) -> float:
    total = 0.0
    for i, row in enumerate(rows):
        total += math.log(math.exp(row[i]) / sum(math.exp(value) for value in row))
    return -total / len(rows)


def transpose(rows: list[list[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*rows, strict=True)]


@settings(max_examples=50, deadline=None)
@given(batches)
def test_info_nce_equals_its_equation(given_batch):
    logits, equal = given_batch
    assert info_nce(logits, equal).item() == pytest.approx(slow_info_nce(logits.tolist()))
    assert torch.equal(info_nce(logits, equal), info_nce(logits))


@settings(max_examples=50, deadline=None)
@given(batches)
def test_symmetric_info_nce_is_the_mean_of_both_directions(given_batch):
    rows = given_batch[0].tolist()
    expected = (slow_info_nce(rows) + slow_info_nce(transpose(rows))) / 2
    assert symmetric_info_nce(*given_batch).item() == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(batches, st.floats(0, 1))
def test_label_smoothing_gives_each_text_of_a_batch_its_share(given_batch, share):
    rows = given_batch[0].tolist()
    total = 0.0
    for values in (rows, transpose(rows)):
        for i, row in enumerate(values):
            log_sum = math.log(sum(math.exp(value) for value in row))
            evenly = sum(log_sum - value for value in row) / len(row)
            total += (1 - share) * (log_sum - row[i]) + share * evenly
    found = symmetric_info_nce(*given_batch, label_smoothing=share).item()
    assert found == pytest.approx(total / (2 * len(rows)))


@settings(max_examples=50, deadline=None)
@given(batches)
def test_equal_texts_info_nce_equals_its_equation(given_batch):
    logits, equal = given_batch
    total = 0.0
    for row, same in zip(logits.tolist(), equal.tolist(), strict=True):
        normaliser = sum(math.exp(value) for value in row)
        positives = [value for value, yes in zip(row, same, strict=True) if yes]
        total += sum(math.log(math.exp(v) / normaliser) for v in positives) / len(positives)
    assert equal_texts_info_nce(logits, equal).item() == pytest.approx(-total / len(logits))


@settings(max_examples=50, deadline=None)
@given(batches, st.floats(-10, 10))
def test_sigmoid_loss_equals_its_equation(given_batch, bias):
    logits, equal = given_batch
    total = 0.0
    for row, same in zip(logits.tolist(), equal.tolist(), strict=True):
        for value, yes in zip(row, same, strict=True):
            total += math.log(1 / (1 + math.exp(-(1 if yes else -1) * (value + bias))))
    assert sigmoid_loss(logits, equal, bias).item() == pytest.approx(-total / len(logits))


def test_equal_texts_info_nce_is_info_nce_where_all_texts_differ():
    logits = torch.randn(4, 4, dtype=torch.double)
    torch.testing.assert_close(equal_texts_info_nce(logits, DISTINCT), info_nce(logits))


def test_a_batch_of_one_text_costs_equal_texts_its_least_value_and_no_gradient():
    logits = torch.zeros(4, 4, dtype=torch.double, requires_grad=True)
    loss = equal_texts_info_nce(logits, torch.ones(4, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4))
    assert logits.grad.abs().max() < 1e-12


def test_info_nce_of_features_that_are_all_alike_is_log_n():
    assert info_nce(torch.full((8, 8), 3.0)).item() == pytest.approx(math.log(8))


@pytest.mark.parametrize("loss", [info_nce, symmetric_info_nce, equal_texts_info_nce])
def test_info_nce_forms_stay_finite_at_the_lowest_temperature(loss):
    logits = 100 * torch.eye(4) - 50
    assert torch.isfinite(loss(-logits, DISTINCT))


@pytest.mark.parametrize(
    "loss", [info_nce, symmetric_info_nce, equal_texts_info_nce, SigmoidLoss()]
)
def test_gradients_of_losses_are_those_of_finite_differences(loss):
    logits = torch.randn(4, 4, dtype=torch.double, requires_grad=True)
    equal = DISTINCT.clone()
    equal[0, 2] = equal[2, 0] = True
    assert torch.autograd.gradcheck(lambda x: loss(x, equal), logits)


def test_sigmoid_bias_starts_at_minus_ten_and_learns():
    loss = SigmoidLoss()
    assert loss.bias.item() == -10
    loss(torch.zeros(4, 4), DISTINCT).backward()
    assert loss.bias.grad.item() < 0  # towards more positives: all four were missed
