from dataclasses import replace
from itertools import permutations
from math import exp, inf, log

import pytest
import torch
from predicted import predicted

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.interfaces import Answer
from mmavlm.metrics.abstention import (
    ABSTAINED,
    Abstaining,
    choose_abstaining,
    expected_calibration_error,
    margins,
    rights,
    risk_over_coverage,
    selective_scores,
    threshold_for,
)


def drawn(number, seed=0, levels=None):
    """Confidences and right answers, the surer the likelier; with `levels` many are equal."""
    draws = torch.Generator().manual_seed(seed)
    confidence = torch.rand(number, generator=draws, dtype=torch.float64)
    if levels:
        confidence = (confidence * levels).round() / levels
    return confidence, torch.rand(number, generator=draws) < confidence


def answered(number, p, truth="yes", said="yes"):
    """The item `number`, answered with probability `p`."""
    return replace(predicted(number, [said], truth), answers=[Answer(said, log(p))])


def split(confidence, right, first=0):
    pairs = enumerate(zip(confidence.tolist(), right.tolist(), strict=True), start=first)
    return [answered(n, c, "yes" if r else "no") for n, (c, r) in pairs]


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_the_calibration_error_is_that_of_its_definition(bins):
    confidence, right = drawn(200)
    expected = 0.0
    for b in range(bins):
        inside = [
            (c, r)
            for c, r in zip(confidence.tolist(), right.tolist(), strict=True)
            if b / bins < c <= (b + 1) / bins
        ]
        if inside:
            gap = sum(r for _, r in inside) / len(inside) - sum(c for c, _ in inside) / len(inside)
            expected += abs(gap) * len(inside) / 200
    assert expected_calibration_error(confidence, right, bins) == pytest.approx(expected)


def test_the_calibration_error_is_0_where_confidence_is_accuracy_and_1_where_it_is_the_opposite():
    sure = torch.tensor([0.0, 1.0, 1.0])
    assert expected_calibration_error(sure, sure.bool()) == 0
    assert expected_calibration_error(sure, ~sure.bool()) == 1


@pytest.mark.parametrize(
    ("confidence", "right", "bins", "error"),
    [([0.5], [True], 0, ConfigError), ([1.1], [True], 5, ValueError), ([], [], 5, ValueError),
     ([0.5, 0.5], [True], 5, ValueError), ([float("nan")], [True], 5, ValueError)],
)  # fmt: skip
def test_what_has_no_calibration_error_is_refused(confidence, right, bins, error):
    with pytest.raises(error):
        expected_calibration_error(torch.tensor(confidence), torch.tensor(right), bins)


@pytest.mark.parametrize("levels", [None, 2])
def test_risk_over_coverage_is_the_mean_over_all_orders_of_equal_confidence(levels):
    confidence, right = drawn(7, seed=4, levels=levels)
    curves = []
    for order in permutations(range(7)):
        ranked = [float(confidence[i]) for i in order]
        if ranked == sorted(ranked, reverse=True):
            wrong = [not right[i] for i in order]
            curves.append([sum(wrong[: k + 1]) / (k + 1) for k in range(7)])
    expected = torch.tensor(curves, dtype=torch.float64).mean(dim=0)
    torch.testing.assert_close(risk_over_coverage(confidence, right), expected)


def test_risk_over_coverage_ends_at_the_share_of_wrong_answers():
    confidence, right = drawn(50)
    wrong = 1 - right.double().mean()
    assert risk_over_coverage(confidence, right)[-1] == pytest.approx(wrong)


@pytest.mark.parametrize("target", [0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("levels", [None, 5])
def test_the_threshold_is_the_least_that_gives_the_target(target, levels):
    confidence, right = drawn(60, seed=2, levels=levels)
    good = [
        c
        for c in confidence.unique().tolist()
        if right[confidence >= c].double().mean() >= target - 1e-9
    ]
    assert threshold_for(confidence, right, target) == (min(good) if good else inf)


def test_a_model_that_is_never_right_answers_nothing():
    chosen = choose_abstaining([answered(0, 0.9, "no"), answered(1, 0.6, "no")], 0.5)
    assert chosen.threshold == inf
    assert chosen.calibration is None
    [row] = chosen.answered([answered(2, 0.99)])
    assert row.answers[0].text == ABSTAINED
    assert row.right is False


def test_confidence_is_the_share_among_candidates_or_the_probability_of_what_was_said():
    ranked = predicted(0, [], ranking=["yes", "no", "maybe"])
    said = predicted(1, ["no"], ranking=["yes", "no", "maybe"])
    nothing = predicted(2, ["a dog"], ranking=["yes", "no"])
    plain = Abstaining(0.9, None, 0.5)
    found = plain.confidence([ranked, said, nothing, answered(3, 0.25)]).tolist()
    total = exp(-1) + exp(-2) + exp(-3)
    assert found == pytest.approx([exp(-1) / total, exp(-2) / total, 0, 0.25], abs=1e-9)


def test_scores_of_certainty_are_finite():
    sure = [predicted(0, [], ranking=["yes"]), answered(1, 1.0), answered(2, 1e-300)]
    assert margins(sure).isfinite().all()


def test_calibration_brings_confidence_to_accuracy_and_keeps_the_order():
    true, right = drawn(2000, seed=1)
    true = true.clamp(0.01, 0.99)
    too_sure = (true.logit() * 3).sigmoid()
    rows = split(too_sure, right)
    plain, chosen = Abstaining(0.9, None, 0.5), choose_abstaining(rows, 0.9)
    before, after = plain.confidence(rows), chosen.confidence(rows)
    assert chosen.calibration.temperature == pytest.approx(3, rel=0.2)
    assert expected_calibration_error(after, right) < expected_calibration_error(before, right) / 2
    assert torch.equal(before.argsort(), after.argsort())


def test_answers_that_are_given_reach_the_target_on_other_films():
    true, right = drawn(4000, seed=1)
    rows = split(true.clamp(1e-6, 1 - 1e-6), right)
    chosen = choose_abstaining(rows[:2000], 0.9)
    tested = rows[2000:]
    found = selective_scores(chosen.confidence(tested), rights(tested), chosen.threshold)
    assert found["selective_accuracy"] == pytest.approx(0.9, abs=0.04)
    assert found["accuracy"] < 0.6 < 1 > found["coverage"] > 0.1
    kept = [row for row in chosen.answered(tested) if row.answers[0].text != ABSTAINED]
    assert len(kept) == round(found["coverage"] * 2000)
    assert found["selective_accuracy"] == pytest.approx(sum(r.right for r in kept) / len(kept))


@pytest.mark.parametrize("target", [0, -1, 1.5])
def test_a_target_that_is_no_accuracy_is_refused(target):
    with pytest.raises(ConfigError, match="target="):
        choose_abstaining([answered(0, 0.5)], target)


def test_captions_and_answers_without_a_probability_are_refused():
    caption = predicted(0, ["a cat"], compare="caption")
    with pytest.raises(DataError, match="'i0' is scored as a caption"):
        margins([caption])
    with pytest.raises(DataError, match="says nothing of how sure"):
        margins([replace(caption, compare="whole", answers=[Answer("yes", float("nan"))])])
