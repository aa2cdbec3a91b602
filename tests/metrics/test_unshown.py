import math

import pytest

from mmavlm.metrics.unshown import UnshownAnswers

ANSWERS = ["friend", "husband wife", "boyfriend girlfriend"]


def shares(answers, truths):
    metric = UnshownAnswers(ANSWERS)
    metric.update([str(i) for i in range(len(answers))], answers, truths)
    return metric.compute()


def test_an_answer_tells_what_was_not_shown_if_it_is_known_and_not_the_truth():
    values = shares(["Friend", " husband wife", "friend", "who knows"], ["friend"] * 4)
    assert values["unshown"] == 1 / 4
    assert values["accuracy"] == 2 / 4
    assert values["count"] == 4
    for name in ("unshown", "accuracy"):
        assert values[f"{name}_low"] < values[name] < values[f"{name}_high"]


def test_an_item_seen_twice_counts_once():
    metric = UnshownAnswers(ANSWERS)
    for answer in ("friend", "husband wife"):
        metric.update(["one"], [answer], ["friend"])
    assert (metric.compute()["unshown"], metric.compute()["count"]) == (0, 1)


def test_without_items_there_is_no_share():
    values = UnshownAnswers(ANSWERS).compute()
    assert math.isnan(values["unshown"])
    assert values["count"] == 0


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"UnshownAnswers: one entry an item .*'answers': 2"):
        UnshownAnswers(ANSWERS).update(["0"], ["friend", "friend"], ["friend"])
