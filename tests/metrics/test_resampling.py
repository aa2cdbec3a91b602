import random
from itertools import product

import pytest
import torch

from mmavlm.metrics import bootstrap_interval, paired_difference, resampling
from mmavlm.metrics.resampling import group_sums, mean, with_count


def test_items_of_one_film_are_drawn_together():
    right = torch.arange(400).remainder(2).double()
    films = torch.arange(400) // 20  # ten of twenty items are right in every film
    assert bootstrap_interval(group_sums(with_count(right), films), mean) == (0.5, 0.5)
    alone = bootstrap_interval(with_count(right), mean)
    assert alone[0] < 0.47
    assert alone[1] > 0.53


def test_sums_of_groups_equal_a_loop():
    generator = torch.Generator().manual_seed(0)
    statistics = torch.rand(30, 3, generator=generator)
    groups = torch.randint(5, (30,), generator=generator)
    expected = torch.stack([statistics[groups == g].double().sum(0) for g in groups.unique()])
    torch.testing.assert_close(group_sums(statistics, groups), expected)


def all_exchanges(a, b):
    """The p-value of every exchange there is, instead of random ones."""
    seen = abs(sum(b) - sum(a))
    differences = [
        abs(sum(sign * (y - x) for sign, x, y in zip(signs, a, b, strict=True)))
        for signs in product((1, -1), repeat=len(a))
    ]
    return sum(d >= seen - 1e-12 for d in differences) / len(differences)


@pytest.mark.parametrize("seed", range(3))
def test_the_permutation_test_approaches_that_of_all_exchanges(seed):
    draw = random.Random(seed)
    a = [draw.random() for _ in range(9)]
    b = [x + draw.gauss(0.1, 0.2) for x in a]
    found = paired_difference(
        mean, with_count(torch.tensor(a)), with_count(torch.tensor(b)), torch.arange(9),
        samples=20_000,
    )  # fmt: skip
    assert found.p_value == pytest.approx(all_exchanges(a, b), abs=0.02)
    assert found.difference == pytest.approx(sum(b) / 9 - sum(a) / 9, abs=1e-6)
    assert found.low <= found.difference <= found.high


def test_a_model_compared_with_itself_does_not_differ():
    values = with_count(torch.rand(50, generator=torch.Generator().manual_seed(0)))
    found = paired_difference(mean, values, values, torch.arange(50))
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_swapping_the_models_turns_the_sign():
    generator = torch.Generator().manual_seed(0)
    a, b = (with_count(torch.rand(50, generator=generator)) for _ in range(2))
    there = paired_difference(mean, a, b, torch.arange(50))
    back = paired_difference(mean, b, a, torch.arange(50))
    assert (back.difference, back.low) == pytest.approx((-there.difference, -there.high))
    assert back.p_value == there.p_value


def test_models_with_other_items_are_refused():
    with pytest.raises(ValueError, match=r"must answer the same items, got statistics \(2, 2\)"):
        paired_difference(mean, torch.ones(2, 2), torch.ones(3, 2), torch.arange(2))


def slow_interval(a, b, groups, samples, seed):
    """The interval as one matrix of all draws gives it."""
    sums_a, sums_b = group_sums(a, groups), group_sums(b, groups)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(sums_a), (samples, len(sums_a)), generator=generator)
    differences = mean(sums_b[drawn].sum(dim=1)) - mean(sums_a[drawn].sum(dim=1))
    return differences.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()


@pytest.mark.parametrize("numbers", [1, 1000, 2**22])
def test_how_many_numbers_are_drawn_at_once_changes_no_figure(monkeypatch, numbers):
    monkeypatch.setattr(resampling, "_NUMBERS", numbers)
    generator = torch.Generator().manual_seed(5)
    a, b = (with_count(torch.rand(300, generator=generator) < p) for p in (0.4, 0.5))
    groups = torch.randint(90, (300,), generator=generator)
    found = paired_difference(mean, a, b, groups, samples=400, seed=3)
    low, high = slow_interval(a, b, groups, samples=400, seed=3)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert found.p_value == paired_difference(mean, a, b, groups, samples=400, seed=3).p_value


def test_scores_of_the_same_items_share_their_draws():
    generator = torch.Generator().manual_seed(6)
    right = torch.rand(2, 200, 2, generator=generator) < 0.5
    a, b = (torch.cat([of_run, torch.ones(200, 1)], dim=1).double() for of_run in right)
    groups = torch.arange(200) // 3
    scores = [lambda sums: mean(sums[..., [0, 2]]), lambda sums: mean(sums[..., [1, 2]])]
    together = resampling.paired_intervals(scores, a, b, groups, samples=100)
    for column, found in enumerate(together):
        alone = paired_difference(mean, a[:, [column, 2]], b[:, [column, 2]], groups, samples=100)
        assert found == alone[:5]
