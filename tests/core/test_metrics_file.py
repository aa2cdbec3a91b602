import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.errors import DataError
from mmavlm.core.metrics_file import read_metrics, write_metrics


@given(metrics=st.dictionaries(st.text(min_size=1, max_size=8), st.floats(allow_infinity=False)))
def test_metrics_come_back_as_they_were_written(tmp_path_factory, metrics):
    path = tmp_path_factory.mktemp("run") / "metrics.json"
    write_metrics(path, metrics)
    back = read_metrics(path)
    assert list(back) == sorted(metrics)
    for name, value in metrics.items():
        assert back[name] == value or (math.isnan(back[name]) and math.isnan(value))


def test_nothing_but_the_file_is_left(tmp_path):
    write_metrics(tmp_path / "metrics.json", {"a": 1.0})
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_what_is_not_finite_is_null_and_named(tmp_path, caplog):
    path = tmp_path / "metrics.json"
    write_metrics(path, {"val/loss": math.nan, "train/loss": math.inf, "test/top1": 0.5})
    assert json.loads(path.read_text()) == {
        "test/top1": 0.5, "train/loss": None, "val/loss": None,
    }  # fmt: skip
    assert f"not finite, written as null in {path}: train/loss, val/loss" in caplog.text


def test_a_run_without_metrics_has_none(tmp_path):
    assert read_metrics(tmp_path / "metrics.json") == {}


@pytest.mark.parametrize("content", ["{", "[1]", "5", '{"a": "b"}', '{"a": [1]}', "[" * 100_000])
def test_a_file_that_is_broken_is_named(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"metrics\.json is no object of names and numbers"):
        read_metrics(path)
