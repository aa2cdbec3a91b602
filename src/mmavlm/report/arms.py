"""The arms of an experiment beside each other: means over seeds with their intervals."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmavlm.metrics.arms import Mean
from mmavlm.report.drawing import INK, NO_METADATA, as_svg, style

FILE_INK, FIRST, SECOND, THIRD = "#24292f", "#3b82c4", "#e07b39", "#4f9a5b"
APART = 0.6  # rows between an arm with what is laid over it and the next one
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


def draw_arms(
    means: Mapping[str, Mapping[str, Mean]],
    groups: Sequence[Mapping[str, str]] = (),
    in_page: bool = False,
) -> str:
    """Arm → score → mean as an svg: dots are seeds, bars 95 % intervals of the mean over seeds.

    It is a file of its own, or an element in the colours of a page.

    `groups` are drawn apart: arm → what its row is called; without any all are one. In each a
    dotted line carries the first arm's means through the others.
    """
    groups = groups or [{arm: arm for arm in means}]
    rows = _rows(groups)
    size = 10.2, 1.2 + 0.3 * (max(rows.values()) + 1)
    with style("arms"):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        ink = INK if in_page else FILE_INK
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (title, scores) in zip(panels, PANELS, strict=True):
            for shift, (score, (colour, name)) in enumerate(scores.items()):
                of_score = {arm: means[arm][score] for arm in rows}
                _series(axes, of_score, rows, shift, colour, name)
                for group in groups:
                    ends = [rows[arm] for arm in (next(iter(group)), list(group)[-1])]
                    mean = 100 * of_score[next(iter(group))].mean
                    axes.plot(
                        [mean, mean], [ends[0] - 0.4, ends[1] + 0.4], ":", color=colour, lw=0.9
                    )
            axes.set_title(title, fontsize=9, color=ink, pad=20)
            axes.grid(axis="x", color=ink, alpha=0.12, linewidth=0.6)
            axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2,
                        borderaxespad=0.1)  # fmt: skip
            if "%" in title:
                axes.set_xlim(-2, 102)  # where an interval is wider, there is nothing to see
        names = [name.replace("_", " ") for group in groups for name in group.values()]
        panels[0].set_yticks(list(rows.values()), names)
        panels[0].set_ylim(max(rows.values()) + 0.7, -0.7)
        if in_page:
            return as_svg(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=NO_METADATA)
    svg = out.getvalue()
    return svg[svg.index("<svg") :]


def _rows(groups: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Arm → how far down it is drawn, in rows."""
    arms = [(arm, at) for at, group in enumerate(groups) for arm in group]
    return {arm: row + APART * at for row, (arm, at) in enumerate(arms)}


def _series(
    axes: Axes,
    arms: Mapping[str, Mean],
    rows: Mapping[str, float],
    shift: int,
    colour: str,
    name: str,
) -> None:
    """One score of every arm, a row each."""
    places = [rows[arm] - 0.12 + 0.24 * shift for arm in arms]
    for row, found in zip(places, arms.values(), strict=True):
        values = [100 * value for value in found.values.values()]
        axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.35, markersize=3)
        axes.plot([100 * found.low, 100 * found.high], [row, row], color=colour, linewidth=1.6)
    means = [100 * found.mean for found in arms.values()]
    axes.plot(means, places, "|", color=colour, markersize=7, markeredgewidth=2, label=name)
