import json

import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.movies.generators import TextRequest, TextResult
from mmavlm.movies.judge import Case, OverlapJudge, judge_pairs, judge_short

GOOD = Case("Who takes it?", "the man in the red shirt", "the man in the red shirt", "a dog")
BAD = Case("Who takes it?", "the man in the red shirt", "a dog", "the man in the red shirt")
EVEN = Case("Who takes it?", "the man in the red shirt", "a cat", "a dog")


class FirstIsBest:
    """A judge that always prefers what stands first."""

    fingerprint = "first"

    def __init__(self):
        self.asked = 0

    def complete(self, request):
        self.asked += 1
        return TextResult(json.dumps({"better": "first", "first": 4.8, "second": 2}))


def test_who_wins_in_both_orders_has_won():
    result = judge_pairs(OverlapJudge(), [GOOD, GOOD, BAD, EVEN])
    assert (result.won.value, result.lost.value, result.tied.value) == (0.5, 0.25, 0.25)
    assert result.ours.value == pytest.approx(2.5)
    assert result.count == 4


def test_swapping_the_sides_swaps_the_result():
    cases = [GOOD, GOOD, BAD, EVEN]
    swapped = [Case(c.question, c.reference, c.other, c.ours) for c in cases]
    one, two = judge_pairs(OverlapJudge(), cases), judge_pairs(OverlapJudge(), swapped)
    assert (one.won, one.tied, one.lost, one.ours) == (two.lost, two.tied, two.won, two.other)


def test_a_judge_that_prefers_a_place_sees_ties_only():
    result = judge_pairs(FirstIsBest(), [GOOD, BAD])
    assert (result.won.value, result.tied.value, result.lost.value) == (0.0, 1.0, 0.0)
    assert result.ours == result.other


def test_verdicts_are_kept_and_not_asked_for_twice(tmp_path):
    judge = FirstIsBest()
    first = judge_pairs(judge, [GOOD], keep=tmp_path)
    assert judge_pairs(judge, [GOOD], keep=tmp_path) == first
    assert judge.asked == 2


def test_intervals_hold_the_mean_and_narrow_with_more_cases():
    few = judge_pairs(OverlapJudge(), [GOOD, BAD] * 5).won
    many = judge_pairs(OverlapJudge(), [GOOD, BAD] * 100).won
    assert few.low < few.value == 0.5 < few.high
    assert many.high - many.low < few.high - few.low


def test_short_answers_are_right_or_wrong_with_a_score():
    accuracy, score = judge_short(OverlapJudge(), [GOOD, BAD, GOOD, GOOD])
    assert accuracy.value == 0.75
    assert score.value == pytest.approx(3.75)


def test_nothing_to_judge_and_nothing_to_write_are_told():
    with pytest.raises(DataError, match="no answers"):
        judge_pairs(OverlapJudge(), [])
    with pytest.raises(DataError, match="no answers"):
        judge_short(OverlapJudge(), [])
    with pytest.raises(ConfigError, match="does not write plot"):
        OverlapJudge().complete(TextRequest("plot", "", {}, {}, seed=0))
