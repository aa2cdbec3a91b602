import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.metrics import PairedAccuracy, wilson_interval

words = st.sampled_from(["yes", "no", "Yes.", "No, it is not", "hm", "yes and no"])


def paired(pairs, **settings):
    """The values for pairs of answers to a basic and a hallucinated question."""
    metric = PairedAccuracy(**settings)
    for i, (basic, hallucinated) in enumerate(pairs):
        metric.update([f"{i}b", f"{i}h"], [f"{i}"] * 2, [False, True], [basic, hallucinated],
                      ["yes", "no"])  # fmt: skip
    return metric.compute()


def test_a_pair_counts_only_if_both_are_right():
    values = paired([("yes", "no"), ("yes", "yes"), ("no", "no"), ("Yes.", "No.")])
    assert (values["basic"], values["hallucinated"], values["accuracy"]) == (0.75, 0.75, 0.5)
    assert (values["count"], values["incomplete"]) == (4, 0)
    assert (values["accuracy_low"], values["accuracy_high"]) == wilson_interval(2, 4)


def test_a_pair_with_a_missing_question_is_counted_as_incomplete():
    metric = PairedAccuracy()
    metric.update(["0b", "0h", "1b"], ["0", "0", "1"], [False, True, False],
                  ["yes", "no", "no"], ["yes", "no", "yes"])  # fmt: skip
    values = metric.compute()
    assert (values["accuracy"], values["basic"]) == (1, 1)
    assert (values["count"], values["incomplete"]) == (1, 1)


def published(pairs):
    """evaluation_bias.py as a loop: what it counts, question by question."""
    n_yes = n_no = wrong = false_alarms = 0
    for basic, hallucinated in pairs:
        says_yes = bool(re.search(r"\byes\b", basic, re.IGNORECASE))
        says_no = bool(re.search(r"\bno\b", hallucinated, re.IGNORECASE))
        n_yes += says_yes
        n_no += says_no
        if not says_yes:
            wrong += 1
        if not says_no:
            wrong += 1
            n_yes += says_yes  # of the basic answer again: the mistake
            false_alarms += says_yes
    difference = (n_yes - len(pairs)) / (2 * len(pairs))
    return difference, false_alarms / wrong if wrong else 0


@settings(max_examples=40)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=12))
def test_the_published_bias_is_reproduced_with_its_mistake(pairs):
    values = paired(pairs, parsing="videohallucer")
    given_here = values["published_yes_difference"], values["published_false_positive_ratio"]
    assert given_here == pytest.approx(published(pairs))


def test_the_published_bias_is_told_in_its_own_way_of_reading_alone():
    assert not any(name.startswith("published") for name in paired([("yes", "no")]))
    # a model that says yes to all: the true difference is 0.5; the mistake hides nothing here
    assert paired([("yes", "yes")], parsing="videohallucer")["published_yes_difference"] == 0.5
    # one that says no to basic and yes to hallucinated questions: true difference 0
    wrong = paired([("no", "yes")], parsing="videohallucer")
    assert (wrong["published_yes_difference"], wrong["published_false_positive_ratio"]) == (-0.5, 0)


@pytest.mark.filterwarnings("ignore:.*was called before the ``update``.*")
@pytest.mark.parametrize("parsing", ["strict", "videohallucer"])
def test_without_pairs_accuracies_are_nan(parsing):
    values = PairedAccuracy(parsing=parsing).compute()
    assert math.isnan(values["accuracy"])
    assert (values["accuracy_low"], values["accuracy_high"], values["count"]) == (0, 1, 0)
