"""Curves: out of Lightning's csv log, onto axes."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmavlm.core.errors import DataError
from mmavlm.report.contents import Curve
from mmavlm.report.drawing import INK, as_svg, style

SPLITS = ("train", "val", "test")
MAX_POINTS = 400  # a line has no more than this many, so that the page stays small
COLOURS = {"train": "#3b82c4", "val": "#e07b39"}


def read_csv_curves(csv_path: Path, group: str = "") -> list[Curve]:
    """The curves of a CSVLogger's metrics.csv, losses first, all of one group.

    `val/loss` becomes the curve `loss` of split `val`; `x_low` and `x_high` become the interval
    of `x`. Columns with fewer than two finite values give no curve.

    Raises:
        DataError: if the file is missing or has no column `step`.
    """
    if not csv_path.is_file():
        raise DataError(f"{csv_path} does not exist; curves are read from the log of logger=csv")
    with csv_path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        names = list(reader.fieldnames or ())
    if "step" not in names:
        raise DataError(
            f"{csv_path} has no column step but {names}; expected the metrics.csv of a CSVLogger"
        )
    columns = {name: dict(_points(rows, name)) for name in names if name not in ("step", "epoch")}
    found = [_curve(name, columns, group) for name in columns if not _bounds(name, columns)]
    return sorted((c for c in found if len(c.steps) > 1), key=_rank)


def _points(rows: Sequence[Mapping[str, str]], name: str) -> Iterator[tuple[int, float]]:
    for row in rows:
        value = float(row[name]) if row.get(name) else math.nan
        if math.isfinite(value):
            yield int(row["step"]), value


def _bounds(name: str, columns: Mapping[str, object]) -> bool:
    """Whether a column bounds another one's interval."""
    return name.endswith(("_low", "_high")) and name.rsplit("_", 1)[0] in columns


def _curve(name: str, columns: Mapping[str, Mapping[int, float]], group: str) -> Curve:
    split, _, rest = name.partition("/")
    if split not in SPLITS or not rest:
        split, rest = "", name
    points = columns[name]
    low, high = (columns.get(f"{name}_{end}", {}) for end in ("low", "high"))
    bounded = points.keys() <= low.keys() and points.keys() <= high.keys()
    return Curve(
        name=rest,
        steps=list(points),
        values=list(points.values()),
        split=split,
        low=[low[step] for step in points] if bounded else (),
        high=[high[step] for step in points] if bounded else (),
        group=group,
    )


def _rank(curve: Curve) -> tuple[int, str, str]:
    """Loss, its parts, what is measured, and last what is set (without a split)."""
    if not curve.split:
        return 3, curve.name, ""
    kind = 0 if curve.name == "loss" else 1 if "/" not in curve.name else 2
    return kind, curve.name, curve.split


def draw(curves: Sequence[Curve]) -> str:
    """One set of axes with a line for each curve, as an svg element in the page's colours."""
    with style(f"{curves[0].group} {curves[0].name}"):
        figure = Figure(figsize=(4.6, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for curve in curves:
            _line(axes, curve)
        axes.set_xlabel("optimizer step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
        if any(curve.split for curve in curves):
            axes.legend(frameon=False, labelcolor=INK)
        return as_svg(figure)


def _line(axes: Axes, curve: Curve) -> None:
    colour = COLOURS.get(curve.split, INK)
    # each point the mean over a bin of steps, one a step as long as they fit
    bins = np.arange(len(curve.steps)) * min(MAX_POINTS, len(curve.steps)) // len(curve.steps)
    size = np.bincount(bins)
    steps, values = (np.bincount(bins, column) / size for column in (curve.steps, curve.values))
    axes.plot(
        steps,
        values,
        color=colour,
        label=curve.split,
        linewidth=1.0 if curve.split == "train" else 1.8,
        marker="o" if len(values) <= 30 else "",
        markersize=3,
    )
    if len(curve.low):
        low, high = (np.bincount(bins, column) / size for column in (curve.low, curve.high))
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
