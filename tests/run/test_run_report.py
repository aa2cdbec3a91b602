from pathlib import Path

from omegaconf import OmegaConf

from mmavlm.core.interfaces import Answer
from mmavlm.metrics import Prediction
from mmavlm.run.outcome import Outcome
from mmavlm.run.report import Confusions, describe


def prediction(item, truth, answer):
    return Prediction(item, item, "animal", "what?", truth, [], [Answer(answer, -1.0)], [truth])


def test_truths_that_training_has_no_class_of_are_counted_beside_the_matrix():
    rows = [prediction("1", "cat", "Cat"), prediction("2", "dog", "Cat"), prediction("3", "", "x")]
    found = Confusions({"animal": ["Cat", "cat ", "bird"]})
    found.take(rows[:1])
    found.take(rows[1:])
    (shown,) = found.matrices()
    assert shown.classes == ["Cat", "bird"]
    assert shown.counts.tolist() == [[1, 0, 0], [0, 0, 0]]
    assert shown.left_out == 2


def outcome(folder, **given):
    config = OmegaConf.create({"seed": 7, "logger": {"api_key": "secret"}})
    overrides = ["experiment=lvu_genre", "logger.api_key=secret"]
    command = ["python", "-m", "mmavlm.train", *overrides]
    fixed = {"folder": Path(folder), "config": config, "overrides": overrides, "command": command}
    return Outcome(**fixed, **given)


def test_a_report_shows_a_run_and_the_stage_before_it(tmp_path):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metrics.csv").write_text("step,train/loss\n1,2.0\n2,1.0\n")
    before = outcome(tmp_path, stage="stage 1", duration_s=90, metrics={"test/recall": 0.5})
    run = outcome(tmp_path / "none", stage="stage 2", duration_s=30, metrics={"test/top1": 0.25})
    shown = describe(run, [before])
    assert [(c.group, c.name) for c in shown.curves] == [("stage 1", "loss")]
    assert [table.rows[0][:2] for table in shown.tables] == [
        ["test/recall", "0.5"],
        ["test/top1", "0.25"],
    ]
    assert shown.facts["took"] == "1 min 30 s"
    assert shown.samples == []
    assert shown.confusions == []


def test_a_report_keeps_secrets_out_of_command_and_config(tmp_path):
    shown = describe(outcome(tmp_path, stage="stage 2", duration_s=1), [])
    assert shown.facts["command"].startswith("python -m mmavlm.train experiment=lvu_genre")
    assert "secret" not in shown.facts["command"] + shown.config_yaml
