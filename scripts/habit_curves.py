"""How the habit of arms changes with what a sweep was repeated over: bias, size of the model.

    python scripts/habit_curves.py 0.6=outputs/bias_0.6 0.9=outputs/bias_0.9 --x "bias in training"
    python scripts/habit_curves.py … --arms 'one_level,one_level + counterfactual' --plot curves.svg

Each point is the folder of a sweep of `experiment=remedies` or `ablation`, whose arms.json has the
means over seeds and their 95 % intervals.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mmavlm.core.errors import DataError
from mmavlm.core.metrics_file import write_text
from mmavlm.report.drawing import NO_METADATA, style
from mmavlm.run.sweep import markdown

INK = "#24292f"
SCORES = {"habit": "habit (points)", "both": "both of a pair right (%)"}
Means = Mapping[str, Mapping[str, Any]]  # arm → score → mean, as in arms.json


def read_points(given: Sequence[str]) -> dict[str, Means]:
    """What x stands for → the means of its sweep.

    Raises:
        DataError: if a point is not x=folder, or its folder has no arms.json.
    """
    points: dict[str, Means] = {}
    for text in given:
        x, equals, folder = text.partition("=")
        path = Path(folder) / "arms.json"
        if not (x and equals and path.is_file()):
            raise DataError(
                f"{text!r} is no point: give x=folder, where the folder is of a sweep that ended "
                "and has an arms.json"
            )
        points[x] = json.loads(path.read_text(encoding="utf-8"))["means"]
    return points


def only(points: Mapping[str, Means], arms: Sequence[str]) -> dict[str, Means]:
    """The points with some of their arms, in the order that is given.

    Raises:
        DataError: if no point has one of them.
    """
    known = arms_of(points)
    if unknown := [arm for arm in arms if arm not in known]:
        raise DataError(f"no sweep has the arm {unknown[0]!r}; there are {', '.join(known)}")
    return {x: {a: means[a] for a in arms if a in means} for x, means in points.items()}


def arms_of(points: Mapping[str, Means]) -> list[str]:
    """The arms of all points, in the order of the first that has them."""
    return list(dict.fromkeys(arm for means in points.values() for arm in means))


def table(points: Mapping[str, Means], x: str) -> str:
    """A row an arm and score, a column a point; empty where an arm was not run."""
    header = ["arm", "score", *(f"{x} {point}" for point in points)]
    rows = [
        [arm, score, *(_cell(means.get(arm, {}).get(score)) for means in points.values())]
        for arm in arms_of(points)
        for score in SCORES
    ]
    return markdown([header, ["-"] * len(header), *rows])


def _cell(mean: Mapping[str, Any] | None) -> str:
    if mean is None:
        return ""
    bounds = mean["low"], mean["high"]
    told = "" if None in bounds else " ({:.1f} to {:.1f})".format(*(100 * b for b in bounds))
    return f"{100 * mean['mean']:.1f}{told}"


def drawing(points: Mapping[str, Means], x: str) -> str:
    """A panel a score: a line an arm, a dot a seed."""
    names = list(points)
    with style("habit curves"):
        figure = Figure(figsize=(8.4, 3.4), layout="constrained", facecolor="white")
        for axes, (score, title) in zip(figure.subplots(1, 2), SCORES.items(), strict=True):
            for arm in arms_of(points):
                there = [i for i, name in enumerate(names) if arm in points[name]]
                means = [points[names[i]][arm][score] for i in there]
                (line,) = axes.plot(there, [100 * m["mean"] for m in means], label=arm)
                for i, mean in zip(there, means, strict=True):
                    seeds = [100 * value for value in mean["values"].values()]
                    axes.plot([i] * len(seeds), seeds, ".", color=line.get_color(), alpha=0.4)
            axes.set_xticks(range(len(names)), names)
            axes.set_xlabel(x)
            axes.set_title(title, fontsize=9, color=INK)
            axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=NO_METADATA)
    svg = out.getvalue()
    return svg[svg.index("<svg") :]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and draw the curves if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("points", nargs="+", metavar="x=folder", help="where a sweep lies")
    parser.add_argument("--x", default="", help="what x is, in words")
    parser.add_argument("--arms", default="", help="arms with commas between them; else all")
    parser.add_argument("--plot", type=Path, help="draw the curves into this svg")
    given = parser.parse_args(arguments)
    try:
        points = read_points(given.points)
        if given.arms:
            points = only(points, [arm.strip() for arm in given.arms.split(",")])
    except DataError as error:
        parser.error(str(error))
    print(table(points, given.x))
    if given.plot is not None:
        write_text(given.plot, drawing(points, given.x))


if __name__ == "__main__":
    main()
