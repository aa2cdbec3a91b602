import math
import random

import pytest
import torch
from predicted import predicted

from mmavlm.core.errors import DataError
from mmavlm.metrics.arms import ArmRun, compare_arms, holm, over_seeds
from mmavlm.metrics.planted_bias import Scored, difference_of_means
from mmavlm.metrics.resampling import mean, with_count

FILMS, A_FILM = 12, 3


def run(right, order=None):
    """A run that got `right` items right, in any order of its rows."""
    order = range(len(right)) if order is None else order
    rows = [predicted(i, ["yes" if right[i] else "no"]) for i in order]
    statistics = with_count(torch.tensor([right[i] for i in order]))
    return ArmRun.of(rows, {"accuracy": Scored(mean, statistics)})


def arm(chance, seeds=(1, 2, 3, 4, 5)):
    """A run a seed, right with some chance."""
    draw = {seed: random.Random(f"{chance} {seed}") for seed in seeds}
    return {s: run([draw[s].random() < chance for _ in range(FILMS * A_FILM)]) for s in seeds}


def t_of(p, degrees):
    """The quantile of Student's t, from its density summed up in small steps."""
    step, total, t = 1e-4, 0.5, 0.0
    scale = math.gamma((degrees + 1) / 2) / math.sqrt(degrees * math.pi) / math.gamma(degrees / 2)
    while total < p:
        total += step * scale * (1 + (t + step / 2) ** 2 / degrees) ** (-(degrees + 1) / 2)
        t += step
    return t


def by_hand(values):
    """Mean and half width of the 95 % t interval."""
    n, centre = len(values), sum(values) / len(values)
    spread = math.sqrt(sum((v - centre) ** 2 for v in values) / (n - 1))
    return centre, t_of(0.975, n - 1) * spread / math.sqrt(n)


def test_means_over_seeds_and_their_intervals_equal_the_formula():
    found = over_seeds(arm(0.7), "accuracy")
    centre, half = by_hand(list(found.values.values()))
    assert found.mean == pytest.approx(centre)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-3)


def test_the_paired_test_looks_at_each_seed_by_itself():
    better, worse = arm(0.8), arm(0.5)
    values = [over_seeds(runs, "accuracy").values for runs in (better, worse)]
    apart = [values[0][seed] - values[1][seed] for seed in values[0]]
    centre, half = by_hand(apart)
    found = compare_arms(better, worse, "accuracy", samples=50)
    assert found.difference == pytest.approx(centre)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-3)
    assert (found.p_seeds < 0.05) == (abs(centre) > half)


def test_an_arm_less_another_is_the_other_less_the_arm_turned_round():
    a, b = arm(0.8), arm(0.6)
    there, back = (compare_arms(x, y, "accuracy", samples=200) for x, y in ((a, b), (b, a)))
    assert (there.difference, there.low) == pytest.approx((-back.difference, -back.high))
    assert there.p_seeds == pytest.approx(back.p_seeds)
    assert there.p_films == pytest.approx(back.p_films)


def test_films_are_exchanged_whole_in_all_seeds_at_once():
    """Right in one half of the films, and the other arm in the other half: nothing is shown."""
    half = [i // A_FILM % 2 == 0 for i in range(FILMS * A_FILM)]
    a, b = ({seed: run(rows) for seed in (1, 2, 3)} for rows in (half, [not r for r in half]))
    found = compare_arms(a, b, "accuracy", samples=400)
    assert found.difference == 0
    assert found.film_low < -0.3 < 0.3 < found.film_high
    assert found.p_films == 1


def test_only_seeds_of_both_arms_count():
    found = compare_arms(arm(0.8, (1, 2, 3)), arm(0.6, (2, 3, 4)), "accuracy", samples=50)
    alone = compare_arms(arm(0.8, (2, 3)), arm(0.6, (2, 3)), "accuracy", samples=50)
    assert found.seeds == (2, 3)
    assert found == alone


def test_the_order_of_rows_in_a_file_does_not_count():
    draw = random.Random(0)
    right = [draw.random() < 0.5 for _ in range(FILMS * A_FILM)]
    order = draw.sample(range(len(right)), len(right))
    other = arm(0.6, (1,))
    plain, mixed = (compare_arms({1: r}, other, "accuracy", samples=50)
                    for r in (run(right), run(right, order)))  # fmt: skip
    assert (plain.difference, plain.p_films) == (mixed.difference, mixed.p_films)


def test_one_seed_has_no_interval_and_equal_differences_have_no_test():
    one = compare_arms(arm(0.8, (1,)), arm(0.6, (1,)), "accuracy", samples=50)
    assert math.isnan(one.low)
    assert math.isnan(one.p_seeds)
    assert math.isnan(over_seeds(arm(0.8, (1,)), "accuracy").low)
    same = compare_arms(arm(0.8), arm(0.8), "accuracy", samples=50)
    assert (same.difference, same.low, same.high) == (0, 0, 0)
    assert math.isnan(same.p_seeds)


def test_arms_of_other_seeds_or_items_are_not_compared():
    with pytest.raises(DataError, match=r"one arm has \[1\], the other \[2\]"):
        compare_arms(arm(0.8, (1,)), arm(0.6, (2,)), "accuracy")
    with pytest.raises(DataError, match="answered different items"):
        compare_arms({1: run([True] * 6)}, {1: run([True] * 9)}, "accuracy")


def test_a_difference_of_means_is_what_its_name_says():
    sums = torch.tensor([[3.0, 4.0, 1.0, 5.0], [0.0, 2.0, 2.0, 2.0]])
    assert difference_of_means(sums).tolist() == pytest.approx([0.75 - 0.2, -1.0])


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_going_through_the_sorted_p_values_rejects(seed):
    draw = random.Random(seed)
    p_values = [draw.random() ** 3 for _ in range(6)]
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for tests, i in zip(
            range(6, 0, -1), sorted(range(6), key=p_values.__getitem__), strict=True
        ):
            if p_values[i] > level / tests:
                break
            rejected.add(i)
        assert {i for i in range(6) if adjusted[i] <= level} == rejected
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))


def test_what_was_not_tested_does_not_count_for_holm():
    assert holm([0.01, math.nan]) == [0.01, pytest.approx(math.nan, nan_ok=True)]
