import math

from mmavlm.runs.metrics import read_metrics, write_metrics


def test_metrics_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "metrics.json"
    write_metrics(path, {"test/top1": 0.5, "a": 1.0, "val/loss": math.nan})
    back = read_metrics(path)
    assert list(back) == ["a", "test/top1", "val/loss"]
    assert back["test/top1"] == 0.5
    assert math.isnan(back["val/loss"])
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_a_run_without_metrics_has_none(tmp_path):
    assert read_metrics(tmp_path / "metrics.json") == {}
