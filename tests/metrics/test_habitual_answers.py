import math

import pytest

from mmavlm.metrics.habit import HabitualAnswers

ITEMS = ["a", "b", "c", "d", "e"]
ANSWERS = ["Yes", "no", "yes", "drama", "no"]
OTHERS = ["yes ", "no", "no", "comedy", "no"]
RIGHT = [False, True, False, False, False]
OTHERS_RIGHT = [False, True, True, False, False]


def scores(rows=range(5)):
    metric = HabitualAnswers()
    metric.update(
        *([values[i] for i in rows] for values in (ITEMS, ANSWERS, OTHERS, RIGHT, OTHERS_RIGHT))
    )
    return metric.compute()


def test_answers_that_stay_are_counted_among_all_and_among_wrong_ones():
    found = scores()
    assert found["same"] == 3 / 5
    assert found["habitual"] == 2 / 4  # a and e, of a, c, d, e
    assert found["right"] == 2 / 5
    assert (found["count"], found["wrong_count"]) == (5, 4)
    assert 0 < found["habitual_low"] < 0.5 < found["habitual_high"] < 1


def test_an_item_seen_twice_counts_once():
    assert scores([0, 1, 2, 3, 4, 0, 4]) == scores()


def test_without_mistakes_nothing_is_known_of_them():
    found = scores([1])
    assert math.isnan(found["habitual"])
    assert (found["habitual_low"], found["habitual_high"]) == (0, 1)


def test_lists_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="HabitualAnswers: one entry an item"):
        HabitualAnswers().update(["a"], ["yes"], [], [True], [True])
