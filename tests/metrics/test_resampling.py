import random
from itertools import product

import pytest
import torch

from mmavlm.metrics import bootstrap_interval, paired_difference
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
