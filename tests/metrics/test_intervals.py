import math
import random
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.metrics import bootstrap_interval, paired_mcnemar, wilson_interval

counts = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (24, 41, 0.434, 0.722),  # 58.5 % of LVU's relationship clips
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_has_published_values(correct, total, low, high):
    places = 3 if total == 41 else 4
    bounds = wilson_interval(correct, total)
    assert [round(bound, places) for bound in bounds] == [low, high]


@settings(max_examples=100, deadline=None)
@given(counts, st.floats(0.5, 0.999))
def test_wilson_bounds_solve_the_score_equation(count, confidence):
    correct, total = count
    p = correct / total
    z = math.sqrt(2) * torch.erfinv(torch.tensor(confidence, dtype=torch.double)).item()
    low, high = wilson_interval(correct, total, confidence)
    assert 0 <= low <= p <= high <= 1
    for bound in (low, high):
        assert (p - bound) ** 2 == pytest.approx(z * z * bound * (1 - bound) / total, abs=1e-9)


@pytest.mark.parametrize(("correct", "total", "bounds"), [(0, 7, 0), (7, 7, 1)])
def test_wilson_bounds_of_none_and_all_right_are_exact(correct, total, bounds):
    assert wilson_interval(correct, total)[bounds] == float(bounds)


def test_without_items_nothing_is_known():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_interval_takes_tensors():
    correct, total = torch.tensor([[0, 3], [0, 5]]), torch.tensor([[0, 9], [4, 5]])
    low, high = wilson_interval(correct, total)
    assert low.shape == high.shape == (2, 2)
    for i in range(2):
        for j in range(2):
            expected = wilson_interval(int(correct[i, j]), int(total[i, j]))
            assert (low[i, j].item(), high[i, j].item()) == expected


@pytest.mark.parametrize("correct", [-1, 6])
def test_more_right_than_items_are_refused(correct):
    message = f"correct must lie between 0 and total, got {correct} of 5"
    with pytest.raises(ValueError, match=message):
        wilson_interval(correct, 5)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_that_is_no_probability_is_refused(confidence):
    message = f"confidence must lie between 0 and 1, got {confidence}"
    with pytest.raises(ValueError, match=message):
        wilson_interval(1, 2, confidence)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20), st.integers(0, 1000))
def test_mcnemar_equals_the_binomial_sum_in_fractions(only_a, only_b, both, seed):
    pairs = [(True, False)] * only_a + [(False, True)] * only_b + [(True, True)] * both
    pairs += [(False, False)] * 3
    random.Random(seed).shuffle(pairs)
    result = paired_mcnemar([a for a, _ in pairs], torch.tensor([b for _, b in pairs]))
    n = only_a + only_b
    tail = sum(Fraction(math.comb(n, k), 2**n) for k in range(min(only_a, only_b) + 1))
    assert (result.only_a, result.only_b) == (only_a, only_b)
    assert result.p_value == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-9)


def test_mcnemar_of_many_items_stays_finite():
    a = torch.zeros(30_000, dtype=torch.bool)
    a[:10_000] = True
    assert paired_mcnemar(a, ~a).p_value == pytest.approx(0, abs=1e-300)


def test_two_models_that_never_differ_are_not_told_apart():
    assert paired_mcnemar([True, False], [True, False]) == (0, 0, 1.0)


def test_mcnemar_refuses_models_that_answered_other_items():
    with pytest.raises(
        ValueError, match=r"must answer the same items, got shapes \(2,\) and \(1,\)"
    ):
        paired_mcnemar([True, False], [True])


def test_a_bootstrap_of_means_comes_near_the_normal_interval():
    units = torch.randn(400, 1, generator=torch.Generator().manual_seed(1)).double() + 3
    low, high = bootstrap_interval(torch.cat([units, torch.ones(400, 1)], 1), mean_of_sums)
    half = 1.96 * float(units.std()) / 20
    assert (low, high) == pytest.approx((float(units.mean()) - half, float(units.mean()) + half),
                                        abs=0.02)  # fmt: skip


def mean_of_sums(sums):
    return sums[:, 0] / sums[:, 1]


def test_a_bootstrap_is_the_same_each_time_and_leaves_out_what_is_undefined():
    units = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    assert bootstrap_interval(units, mean_of_sums) == (1, 1)
    units = torch.rand(7, 2)
    assert bootstrap_interval(units, mean_of_sums) == bootstrap_interval(units, mean_of_sums)
    for nothing in (torch.zeros(0, 2), torch.zeros(3, 2)):
        assert all(math.isnan(bound) for bound in bootstrap_interval(nothing, mean_of_sums))
