"""A picture of a film as it was watched: scores, what was asked and said, what is true."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmavlm.core.errors import ConfigError
from mmavlm.core.files import write_whole
from mmavlm.core.streams import INFORMATIVE, RELEVANCE
from mmavlm.report.contents import Moment, Timeline
from mmavlm.report.drawing import INK, as_svg, style
from mmavlm.report.explanation import HEIGHTS_IN, WIDTH_IN, frames_over_time

COLOURS: Mapping[str, str] = {INFORMATIVE: "#3b82c4", RELEVANCE: "#e07b39"}
MORE = ("#7a5195", "#2a9d8f", "#8d6e63")  # of heads of other names
TRUE = "#1f9d61"
SIGNS: Mapping[str, tuple[str, str]] = {  # kind → marker and colour of what was said
    "asked": ("v", INK),
    "said": ("o", "#3b82c4"),
    "taken back": ("x", "#b3372f"),
}
ROWS = ("asked", "said", "taken back")
LEAST_S = 0.5  # that a picture is wide, be there one frame alone
LINE_IN = 0.2
MOST_NUMBERED = 40  # more numbers than that would lie on each other
MOST_POINTS = 1500  # a line of an hour has no more, so that the page stays small


def draw_timeline(line: Timeline) -> str:
    """The picture as an svg element in the page's colours."""
    with style(line.title):
        return as_svg(picture(line))


def save_timeline(line: Timeline, path: Path) -> None:
    """Write the picture to a file; its ending says of which kind: png, svg, pdf.

    Raises:
        ConfigError: if there is no such kind.
    """
    kind = path.suffix.removeprefix(".").lower()
    with style(path.stem):
        figure, out = picture(line), io.BytesIO()
        if kind not in figure.canvas.get_supported_filetypes():
            raise ConfigError(
                f"a picture cannot be written to {path}; end it with .png, .svg or .pdf"
            )
        figure.savefig(out, format=kind, dpi=150, facecolor="white")
    write_whole(path, out.getvalue())


def listed(line: Timeline) -> list[tuple[str, Moment]]:
    """The moments in order of time, each with its number in the picture, "" where it has none."""
    ordered = sorted(line.moments, key=lambda moment: (moment.start_s, moment.end_s))
    said = [moment for moment in ordered if moment.kind != "true"]
    numbered = len(said) <= MOST_NUMBERED
    number, found = 0, []
    for moment in ordered:
        number += moment.kind != "true"
        mark = str(number) if numbered and moment.kind != "true" else ""
        found.append((mark, moment))
    return found


def picture(line: Timeline) -> Figure:
    """Some frames, the scores with what is true behind them, and what was said below."""
    moments = listed(line)
    kinds = [kind for kind in ROWS if any(moment.kind == kind for _, moment in moments)]
    heights = {"frames": HEIGHTS_IN["frames"]} if line.frames is not None else {}
    heights |= {"scores": 1.8} | ({"said": 0.35 + 0.28 * len(kinds)} if kinds else {})
    figure = Figure(figsize=(WIDTH_IN, sum(heights.values()) + 0.9), layout="constrained")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=[*heights.values()])
    over_time = {name: figure.add_subplot(grid[n]) for n, name in enumerate(heights)}
    start_s = min(line.times_s, default=0.0)  # of the stretch of a film that was watched
    ends_s = (*line.times_s, *line.frames_s, *(moment.end_s for _, moment in moments))
    end_s = max(*ends_s, start_s + LEAST_S)
    for number, axes in enumerate(over_time.values()):
        axes.set_xlim(start_s, end_s)
        axes.tick_params(labelbottom=number == len(heights) - 1)
    axes.set_xlabel("time in the film (s)")
    if line.frames is not None:
        frames_over_time(over_time["frames"], line.frames, np.asarray(line.frames_s, float))
    _scores(over_time["scores"], line)
    if kinds:
        _said(over_time["said"], kinds, moments)
    return figure


def _scores(axes: Axes, line: Timeline) -> None:
    others = iter(MORE * len(line.scores))
    for head, scores in line.scores.items():
        times, values = _thinned(line.times_s, scores)
        axes.plot(times, values, color=COLOURS.get(head) or next(others), label=head, linewidth=1.4)
    if line.threshold is not None and 0 <= line.threshold <= 1:  # else the scores were a flat line
        axes.axhline(line.threshold, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6,
                     label="threshold")  # fmt: skip
    true = [moment for moment in line.moments if moment.kind == "true"]
    for number, moment in enumerate(true):
        axes.axvspan(moment.start_s, moment.end_s, color=TRUE, alpha=0.18, linewidth=1,
                     label="_" * bool(number) + "true")  # fmt: skip
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("score")
    axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
    axes.legend(frameon=False, labelcolor=INK, loc="lower left", bbox_to_anchor=(0, 1),
                ncols=8, borderaxespad=0.1, fontsize=8)  # fmt: skip


def _thinned(times_s: Sequence[float], scores: Sequence[float]) -> tuple[list[float], list[float]]:
    """The line with the least and the greatest score of each of bins of frames, if it is long."""
    if len(times_s) <= MOST_POINTS:
        return [*times_s], [*scores]
    values, kept = np.asarray(scores), set[int]()
    for part in np.array_split(np.arange(len(values)), MOST_POINTS // 2):
        kept |= {int(part[values[part].argmin()]), int(part[values[part].argmax()])}
    order = sorted(kept)
    return [times_s[n] for n in order], [scores[n] for n in order]


def _said(axes: Axes, kinds: Sequence[str], moments: Sequence[tuple[str, Moment]]) -> None:
    rows = {kind: len(kinds) - 1 - n for n, kind in enumerate(kinds)}
    for kind, row in rows.items():
        times = [moment.start_s for _, moment in moments if moment.kind == kind]
        marker, colour = SIGNS[kind]
        axes.scatter(times, [row] * len(times), marker=marker, color=colour, s=26, linewidths=1.4,
                     clip_on=False)  # fmt: skip
    for mark, moment in moments:
        if mark:
            axes.annotate(mark, (moment.start_s, rows[moment.kind]), xytext=(4, 3),
                          textcoords="offset points", fontsize=7, color=INK)  # fmt: skip
    axes.set_yticks([*rows.values()], [*rows])
    axes.set_ylim(-0.6, len(kinds) - 0.25)
    axes.tick_params(left=False)
