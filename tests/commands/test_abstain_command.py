"""Answers held back below a threshold chosen on another split, as a user types it."""

import json
from math import log

import pytest

from mmavlm import evaluate
from mmavlm.core.interfaces import Answer
from mmavlm.metrics import Prediction, read_predictions, write_predictions
from mmavlm.metrics.abstention import ABSTAINED


def split(folder, name, number):
    """Answers as right as they are sure, of which every second one could be either."""
    rows = []
    for i in range(number):
        sure = i % 2
        truth = "yes" if sure or i % 4 else "no"
        answers = [Answer("yes", log(0.95 if sure else 0.55))]
        rows.append(
            Prediction(f"{name}{i}", f"{name}{i}", "qa", "is it?", truth, answers, [], ["a"])
        )
    write_predictions(folder / f"{name}.jsonl", [_with_truth(row) for row in rows])


def _with_truth(row):
    return Prediction(**{**vars(row), "references": [row.truth]})


@pytest.fixture
def splits(tmp_path):
    split(tmp_path, "val", 80)
    split(tmp_path, "test", 40)
    return ["predictions=test.jsonl", "val_predictions=val.jsonl", "hydra.run.dir=out"]


def test_a_model_abstains_where_it_is_not_sure(run, splits, tmp_path, capsys):
    assert run(evaluate, *splits, "target=0.99") == 0
    found = json.loads((tmp_path / "out/metrics.json").read_text())
    assert found["test/coverage"] == found["test/qa/coverage"] == 0.5
    assert (found["test/accuracy"], found["test/selective_accuracy"]) == (0.75, 1)
    rows = read_predictions(tmp_path / "out/predictions.jsonl")
    assert sum(row.answers[0].text == ABSTAINED for row in rows) == 20
    curve = json.loads((tmp_path / "out/abstention.json").read_text())["curve"]
    assert curve[19] == [0.5, 0]
    assert curve[-1] == [1, pytest.approx(0.25)]
    said = capsys.readouterr().out
    assert "chosen on the validation for target=0.99" in said
    assert "answered at all" in said
    assert "mean over tasks" not in said
    assert found["test/accuracy_low"] < 0.75 < found["test/accuracy_high"]


def test_a_target_that_every_answer_reaches_holds_none_back(run, splits, tmp_path):
    assert run(evaluate, *splits, "target=0.6") == 0
    found = json.loads((tmp_path / "out/metrics.json").read_text())
    assert found["test/coverage"] == 1
    assert found["test/selective_accuracy"] == found["test/accuracy"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["val_predictions=test.jsonl"], "40 items are in predictions and in val_predictions"),
        (["val_predictions=null", "target=0.5"], "target=0.5 needs val_predictions="),
        (["target=2"], "target=2 must be above 0 and at most 1"),
        (["predictions=null", "compare=[test.jsonl,val.jsonl]"], "compare=… reads none"),
        (["judge=overlap"], "judge=… reads none; run one after the other"),
    ],
)
def test_what_cannot_say_when_to_abstain_is_refused(run, splits, more, said, capsys):
    given = dict(setting.split("=", 1) for setting in [*splits, *more])
    assert run(evaluate, *(f"{name}={value}" for name, value in given.items())) == 1
    assert said in capsys.readouterr().err


def test_a_validation_alone_is_told_that_answers_are_missing(run, splits, capsys):
    assert run(evaluate, *splits[1:]) == 1
    assert "give them with predictions=…" in capsys.readouterr().err


def test_what_is_no_log_probability_is_named(run, splits, tmp_path, capsys):
    rows = [json.loads(line) for line in (tmp_path / "val.jsonl").read_text().splitlines()]
    rows[3]["answers"][0]["log_prob"] = 0.5
    (tmp_path / "val.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert run(evaluate, *splits) == 1
    said = capsys.readouterr().err
    assert repr(rows[3]["item_id"]) in said
    assert "log-probability 0.5" in said
