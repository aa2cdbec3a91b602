import math
import re
from xml.etree import ElementTree

import pytest
from lightning.pytorch.loggers import CSVLogger

from mmavlm.core.errors import DataError
from mmavlm.report import Curve, read_csv_curves
from mmavlm.report.curves import MAX_POINTS, draw


@pytest.fixture
def log(tmp_path):
    logger = CSVLogger(tmp_path, name="csv", version="")
    for step in range(0, 40, 10):
        logger.log_metrics({"train/loss": 4 - step / 10, "lr-AdamW": 0.1}, step=step)
    for epoch, step in enumerate((19, 39)):
        metrics = {"val/loss": 2.0 - epoch, "val/genre/top1": 0.5, "epoch": epoch}
        bounds = {"val/genre/top1_low": 0.25, "val/genre/top1_high": 0.75}
        logger.log_metrics({**metrics, **bounds, "val/nothing": math.nan}, step=step)
    logger.log_metrics({"test/loss": 0.5}, step=40)
    logger.save()
    return tmp_path / "csv" / "metrics.csv"


def test_curves_come_back_as_they_were_logged(log):
    curves = {(c.split, c.name): c for c in read_csv_curves(log)}
    assert curves["train", "loss"].steps == [0, 10, 20, 30]
    assert curves["train", "loss"].values == [4.0, 3.0, 2.0, 1.0]
    assert curves["val", "loss"].steps == [19, 39]
    assert curves["", "lr-AdamW"].values == [0.1] * 4


def test_bounds_become_the_interval_of_their_metric(log):
    names = [c.name for c in read_csv_curves(log)]
    assert not any(name.endswith(("low", "high")) for name in names)
    top1 = next(c for c in read_csv_curves(log) if c.name == "genre/top1")
    assert (top1.low, top1.high) == ([0.25, 0.25], [0.75, 0.75])


def test_a_single_point_or_none_is_no_curve(log):
    found = [(c.split, c.name) for c in read_csv_curves(log)]
    assert ("test", "loss") not in found
    assert ("val", "nothing") not in found


def test_losses_come_first_and_settings_last(log):
    found = [(c.split, c.name) for c in read_csv_curves(log, group="FineTune")]
    assert found[:2] == [("train", "loss"), ("val", "loss")]
    assert found[-1] == ("", "lr-AdamW")
    assert {c.group for c in read_csv_curves(log, group="FineTune")} == {"FineTune"}


def test_a_missing_log_is_named(tmp_path):
    with pytest.raises(DataError, match=r"metrics\.csv does not exist; .*logger=csv"):
        read_csv_curves(tmp_path / "metrics.csv")


def test_a_file_that_is_no_log_is_named_with_its_columns(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"other\.csv has no column step but \['a', 'b'\]"):
        read_csv_curves(path)


def test_a_drawing_is_one_svg_in_the_colours_of_the_page():
    svg = draw([Curve("loss", [0, 1], [1.0, 0.5], split) for split in ("train", "val")])
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert "#010203" not in svg
    assert "currentColor" in svg
    texts = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert {"train", "val", "optimizer step"} <= texts


def test_equal_curves_give_equal_drawings():
    curve = Curve("loss", [0, 1], [1.0, 0.5])
    assert draw([curve]) == draw([curve])


def test_drawings_of_one_page_share_no_ids():
    ids = [
        set(re.findall(r' id="([^"]+)"', draw([Curve(name, [0, 1], [1.0, 0.5])])))
        for name in ("loss", "accuracy")
    ]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_long_run_is_drawn_in_few_points():
    short, long = (
        draw([Curve("loss", list(range(n)), [float(i % 7) for i in range(n)])])
        for n in (MAX_POINTS, 50 * MAX_POINTS)
    )
    assert len(long) < 1.2 * len(short)


def test_a_curve_whose_lists_differ_in_length_is_refused():
    with pytest.raises(ValueError, match=r"Curve 'loss': .* equally long .* got \[2, 1, 0, 0\]"):
        Curve("loss", [0, 1], [1.0])
    with pytest.raises(ValueError, match=r"got \[2, 2, 1, 1\]"):
        Curve("loss", [0, 1], [1.0, 1.0], low=[0.0], high=[1.0])
