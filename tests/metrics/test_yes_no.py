import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_f1_score,
    binary_matthews_corrcoef,
    binary_precision,
    binary_recall,
)

from mmavlm.core.errors import ConfigError
from mmavlm.metrics import YesNoStats
from mmavlm.metrics.yes_no import matthews

answered = st.lists(st.tuples(st.sampled_from(["yes", "no"]), st.sampled_from(["yes", "no"])),
                    min_size=1, max_size=40)  # fmt: skip


def stats(truths, answers, **settings):
    metric = YesNoStats(**settings)
    metric.update([f"{i}" for i in range(len(truths))], answers, truths)
    return metric.compute()


def test_the_statistics_of_six_answers_are_those_worked_out_by_hand():
    truths = ["yes", "yes", "yes", "no", "no", "no"]
    values = stats(truths, ["Yes", "yes.", "hm", "Yes", "no", "no"])
    # hits 2, false alarms 1, misses 1 (unparsed), right 4
    expected = {
        "accuracy": 4 / 6, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "yes_ratio": 3 / 6,
        "yes_difference": 0, "false_positive_ratio": 1 / 2, "unparsed": 1 / 6, "count": 6,
    }  # fmt: skip
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    for name in ("accuracy", "unparsed", "f1"):
        assert values[f"{name}_low"] <= values[name] <= values[f"{name}_high"]


@settings(max_examples=40)
@given(answered)
def test_parsed_answers_have_the_scores_of_torchmetrics_where_these_are_defined(rows):
    truths, answers = zip(*rows, strict=True)
    values = stats(truths, answers)
    truth, said = (torch.tensor([word == "yes" for word in words]).long()
                   for words in (truths, answers))  # fmt: skip
    theirs = {
        "accuracy": binary_accuracy, "precision": binary_precision, "recall": binary_recall,
        "f1": binary_f1_score,
    }  # fmt: skip
    for name, of_library in theirs.items():
        if not math.isnan(values[name]):
            assert values[name] == pytest.approx(float(of_library(said, truth)))
    assert math.isnan(values["precision"]) == (not said.any())
    assert math.isnan(values["recall"]) == (not truth.any())
    mine = matthews(truth, said)
    if 0 < truth.sum() < len(truth) and 0 < said.sum() < len(said):
        assert mine == pytest.approx(float(binary_matthews_corrcoef(said, truth)), abs=1e-6)
    else:
        assert mine == 0, "as scikit-learn has it, whose function VidHalluc calls"


@settings(max_examples=20)
@given(answered, st.integers(0, 100))
def test_order_batches_and_repeated_items_change_nothing(rows, seed):
    numbered = [(f"{i}", answer, truth) for i, (truth, answer) in enumerate(rows)]
    mixed = numbered + numbered[: len(numbered) // 2]
    random.Random(seed).shuffle(mixed)
    metric = YesNoStats()
    for row in mixed:
        metric.update(*([part] for part in row))
    assert metric.compute() == pytest.approx(stats(*zip(*rows, strict=True)), nan_ok=True)


def test_yes_to_everything_shows_in_the_yes_difference():
    values = stats(["yes", "no", "no", "no"], ["yes"] * 4)
    assert values["yes_ratio"] == 1
    assert values["yes_difference"] == 0.75
    assert values["recall"] == 1
    assert values["false_positive_ratio"] == 1


def test_the_published_way_of_pope_leaves_nothing_unparsed():
    answers = ["maybe", "not at all"]
    assert stats(["yes", "no"], answers)["unparsed"] == 1
    pope = stats(["yes", "no"], answers, parsing="pope")
    assert (pope["unparsed"], pope["accuracy"]) == (0, 1)


@pytest.mark.filterwarnings("ignore:.*was called before the ``update``.*")
def test_without_items_all_are_nan_and_the_interval_is_everything():
    values = YesNoStats().compute()
    assert values.pop("count") == 0
    for name, value in values.items():
        bound = {"low": 0, "high": 1}.get(name.rpartition("_")[2])
        assert value == bound or math.isnan(value), name


def test_never_saying_yes_leaves_precision_undefined_and_f1_at_0():
    values = stats(["yes", "no"], ["no", "no"])
    assert math.isnan(values["precision"])
    assert (values["recall"], values["f1"]) == (0, 0)
    assert math.isnan(stats(["no"], ["no"])["f1"])
    assert math.isnan(stats(["no"], ["no"])["false_positive_ratio"])


def test_a_truth_that_is_neither_is_refused():
    with pytest.raises(ValueError, match="yes or no for its truth, got 'maybe'"):
        YesNoStats().update(["0"], ["yes"], ["maybe"])


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"one entry an item .*'answers': 2"):
        YesNoStats().update(["0"], ["yes", "no"], ["yes"])


def test_an_unknown_way_of_reading_is_refused_at_once():
    with pytest.raises(ConfigError, match="parsing='gpt'"):
        YesNoStats(parsing="gpt")
