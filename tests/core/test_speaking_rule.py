"""When a model that watches speaks, by its scores."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.errors import ConfigError
from mmavlm.core.speaking import SILENT, SpeakingRule

TOTALS = st.lists(st.integers(0, 20).map(lambda n: n / 20), max_size=40)


def spoken(rule, totals):
    return rule.times_s(range(len(totals)), totals)


def test_a_running_sum_begins_again_where_it_has_spoken():
    assert spoken(SpeakingRule(1.0, by="sum"), [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]) == [2, 5]


def test_a_score_stands_out_from_those_before_it_once_there_are_enough():
    rule = SpeakingRule(2.0, by="zscore", history=4)
    assert spoken(rule, [0.9, 0.1, 0.2, 0.1, 0.2, 0.9, 0.15, 0.1]) == [5]
    assert spoken(rule, [0.2] * 9) == []


def test_one_rise_of_the_scores_is_one_reply_where_they_have_to_fall_first():
    totals = [0.1, 0.8, 0.9, 0.4, 0.8, 0.2, 0.7]
    assert spoken(SpeakingRule(0.5), totals) == [1, 2, 4, 6]
    assert spoken(SpeakingRule(0.5, release=0.3), totals) == [1, 6]


def test_a_pause_counts_from_the_frame_at_which_it_spoke():
    assert spoken(SpeakingRule(0.5, 2.0), [0.9] * 6) == [0, 2, 4]


@given(TOTALS, st.sampled_from(["probability", "sum", "zscore"]),
       st.sampled_from([0.0, 1.5, 3.0]), st.sampled_from([None, 0.2, 0.6]))  # fmt: skip
def test_pauses_are_kept_and_what_is_decided_depends_on_no_later_frame(totals, by, pause, release):
    rule = SpeakingRule(0.5, pause, by=by, release=release, history=3)
    times = spoken(rule, totals)
    assert all(b - a >= pause for a, b in pairwise(times))
    for end in range(len(totals)):
        assert spoken(rule, totals[:end]) == [t for t in times if t < end]


@given(TOTALS, st.sampled_from(["probability", "sum", "zscore"]))
def test_what_is_carried_along_does_not_grow(totals, by):
    rule, state = SpeakingRule(0.5, by=by, history=3), SILENT
    for n, total in enumerate(totals):
        state, _ = rule.step(state, n, total)
        assert len(state.recent) <= 3


@pytest.mark.parametrize(("settings", "message"), [
    ({"threshold": math.nan}, "speak.threshold must be a number"),
    ({"threshold": 1, "pause_s": -1}, "speak.pause_s must be at least 0"),
    ({"threshold": 1, "by": "guess"}, "speak.by='guess' is unknown; choose probability, sum"),
    ({"threshold": 1, "history": 1}, "speak.history must be at least 2"),
    ({"threshold": 1, "heads": ()}, "give a list of heads"),
    ({"threshold": 1, "heads": "informative"}, "give a list of heads"),
])  # fmt: skip
def test_a_rule_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        SpeakingRule(**settings)
