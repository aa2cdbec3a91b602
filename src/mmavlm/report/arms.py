"""The arms of an experiment beside each other: means over seeds with their intervals."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmavlm.metrics.arms import Mean
from mmavlm.report.drawing import NO_METADATA, style

INK, FIRST, SECOND, THIRD = "#24292f", "#3b82c4", "#e07b39", "#4f9a5b"
# A panel each: its title, and the scores drawn there with colour and name.
PANELS: tuple[tuple[str, Mapping[str, tuple[str, str]]], ...] = (
    (
        "right answers (%)",
        {"accuracy": (FIRST, "all questions"), "both": (SECOND, "both of a pair")},
    ),
    (
        "yes to what is not there (%)",
        {
            "false_yes_unlikely": (FIRST, "partner absent too"),
            "false_yes_likely": (SECOND, "partner there"),
        },
    ),
    ("habit (points)", {"habit": (THIRD, "partner there less absent")}),
)


def draw_arms(means: Mapping[str, Mapping[str, Mean]]) -> str:
    """Arm → score → mean as an svg: dots are seeds, bars 95 % intervals of the mean over seeds.

    A dotted line carries the first arm's means through the others.
    """
    size = 10.2, 1.2 + 0.42 * len(means)
    with style("arms"):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (title, scores) in zip(panels, PANELS, strict=True):
            for shift, (score, (colour, name)) in enumerate(scores.items()):
                _series(axes, [of_arm[score] for of_arm in means.values()], shift, colour, name)
            axes.set_title(title, fontsize=9, color=INK)
            axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)
            axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2)
        panels[0].set_yticks(range(len(means)), [arm.replace("_", " ") for arm in means])
        panels[0].invert_yaxis()
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=NO_METADATA)
    svg = out.getvalue()
    return svg[svg.index("<svg") :]


def _series(axes: Axes, arms: list[Mean], shift: int, colour: str, name: str) -> None:
    """One score of every arm, a row each."""
    rows = [row - 0.12 + 0.24 * shift for row in range(len(arms))]
    for row, found in zip(rows, arms, strict=True):
        values = [100 * value for value in found.values.values()]
        axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.35, markersize=3)
        axes.plot([100 * found.low, 100 * found.high], [row, row], color=colour, linewidth=1.6)
    means = [100 * found.mean for found in arms]
    axes.plot(means, rows, "|", color=colour, markersize=9, markeredgewidth=2, label=name)
    axes.axvline(means[0], color=colour, linestyle=":", linewidth=0.9)
