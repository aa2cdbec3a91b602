import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.metrics import GroupAccuracy, OrderAccuracy, SAHRatio, wilson_interval


def test_a_group_counts_only_if_all_of_it_is_right():
    metric = GroupAccuracy()
    metric.update(list("01234"), ["a", "a", "b", "b", "c"], [True, True, True, False, True])
    values = metric.compute()
    assert (values["accuracy"], values["item_accuracy"]) == (2 / 3, 4 / 5)
    assert (values["count"], values["items"]) == (3, 5)
    assert (values["accuracy_low"], values["accuracy_high"]) == wilson_interval(2, 3)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), min_size=1, max_size=20))
def test_groups_equal_a_count_by_hand(rows):
    metric = GroupAccuracy()
    for i, (group, right) in enumerate([*rows, rows[0]]):  # the last is the first item once more
        metric.update([f"{i % len(rows)}"], [group], [right])
    groups = {g: all(right for other, right in rows if other == g) for g, _ in rows}
    assert metric.compute()["accuracy"] == pytest.approx(sum(groups.values()) / len(groups))


def test_a_group_of_which_a_question_is_missing_counts_for_nothing():
    metric = GroupAccuracy()
    metric.update(list("012"), ["a", "b", "b"], [True, True, False], [2, 2, 2])
    values = metric.compute()
    assert (values["accuracy"], values["count"], values["incomplete"]) == (0, 1, 1)
    assert (values["item_accuracy"], values["items"]) == (2 / 3, 3)
    metric.update(["3"], ["a"], [True], [2])
    assert (metric.compute()["accuracy"], metric.compute()["incomplete"]) == (0.5, 0)


def triplets(*rows):
    """A metric that has seen triplets of answers: to the true, in- and out-of-video caption."""
    metric = SAHRatio()
    kinds = ["ground_truth", "in_video", "out_video"]
    for i, answers in enumerate(rows):
        n = len(answers)
        metric.update([f"{i}{kind}" for kind in kinds[:n]], [f"{i}"] * n, kinds[:n], answers,
                      ["yes", "no", "no"][:n])  # fmt: skip
    return metric


def test_the_sah_ratio_of_four_triplets_is_that_worked_out_by_hand():
    values = triplets(
        ("yes", "no", "no"), ("yes", "yes", "no"), ("no", "no", "no"), ("yes", "yes", "no")
    ).compute()
    # in-video pairs right: 1 of 4; out-of-video pairs: 3 of 4
    assert (values["in_accuracy"], values["out_accuracy"]) == (0.25, 0.75)
    assert values["sah_ratio"] == pytest.approx((0.75 - 0.25) / (1 - 0.25))
    assert values["sah_ratio_low"] <= values["sah_ratio"] <= values["sah_ratio_high"]
    assert (values["count"], values["incomplete"]) == (4, 0)


def test_without_in_video_mistakes_the_ratio_is_undefined():
    values = triplets(("yes", "no", "no"), ("Yes", "No", "yes")).compute()
    assert (values["in_accuracy"], values["out_accuracy"]) == (1, 0.5)
    assert math.isnan(values["sah_ratio"])
    assert math.isnan(values["sah_ratio_low"])


def test_incomplete_triplets_count_for_nothing():
    values = triplets(("yes", "yes", "no"), ("yes", "no")).compute()
    assert (values["in_accuracy"], values["count"], values["incomplete"]) == (0, 1, 1)


def test_an_unknown_kind_of_caption_is_refused():
    with pytest.raises(ValueError, match=r"captions are of the kinds .* got \['near'\]"):
        SAHRatio().update(["0"], ["0"], ["near"], ["yes"], ["yes"])


def test_orders_are_right_wrong_or_unparsed():
    metric = OrderAccuracy()
    metric.update(list("0123"), ["AB", "Action B then Action A", "AB", "a dog"],
                  ["AB", "BA", "BA", "AB"])  # fmt: skip
    values = metric.compute()
    assert (values["accuracy"], values["unparsed"]) == (0.5, 0.25)
    assert (values["first_ratio"], values["first_true"], values["count"]) == (0.5, 0.5, 4)


def test_a_truth_that_is_no_order_is_refused():
    with pytest.raises(ValueError, match=r"a truth is AB or BA, got \['A'\]"):
        OrderAccuracy().update(["0"], ["AB"], ["A"])


@pytest.mark.filterwarnings("ignore:.*was called before the ``update``.*")
@pytest.mark.parametrize("metric", [GroupAccuracy(), OrderAccuracy(), SAHRatio()], ids=repr)
def test_without_items_shares_are_nan(metric):
    values = metric.compute()
    assert values["count"] == 0
    shares = [name for name in values if name.endswith(("accuracy", "ratio"))]
    assert shares
    assert all(math.isnan(values[name]) for name in shares)
