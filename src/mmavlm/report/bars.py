"""One number of several jobs beside each other, with its intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from mmavlm.report.drawing import INK, as_svg, style

COLOUR = "#3b82c4"
LONGEST = 48  # signs of a name


@dataclass(frozen=True)
class Bar:
    """A number, what it is of, and its interval's bounds, None where it has none."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


def draw_bars(title: str, bars: Sequence[Bar]) -> str:
    """Numbers in rows from above as dots, their intervals as lines: an svg element of the page."""
    with style(f"bars {title}"):
        figure = Figure(figsize=(9, 0.8 + 0.26 * len(bars)), layout="constrained")
        axes = figure.add_subplot()
        for row, bar in enumerate(bars):
            if bar.low is not None and bar.high is not None:
                axes.plot([bar.low, bar.high], [row, row], color=COLOUR, linewidth=2, alpha=0.5)
        axes.plot([bar.value for bar in bars], range(len(bars)), "o", color=COLOUR, markersize=5)
        axes.set_yticks(range(len(bars)), [_short(bar.name) for bar in bars])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlabel(title)
        axes.grid(axis="x", color=INK, alpha=0.15, linewidth=0.6)
        return as_svg(figure)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 2]} …"
