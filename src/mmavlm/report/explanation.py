"""A picture of what one answer rests on, over the time of its film."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from mmavlm.core.errors import ConfigError
from mmavlm.core.files import write_whole
from mmavlm.model.explain import Explanation
from mmavlm.report.drawing import INK, as_svg, style
from mmavlm.report.findings import findings, likely
from mmavlm.report.places import draw_places, drawable

Numbers = NDArray[np.float64]

WIDTH_IN = 9.0
FRAMES_IN = 6.6  # what of it is left for the film's time, and so for frames side by side
MOST_FRAMES = 9
HEIGHTS_IN = {"frames": 0.75, "slots": 1.3, "attention": 1.3, "changes": 1.2, "places": 2.0}
LINE_IN = 0.2  # of a title
# The axis of changes reaches at least so far up and down, or differences of no weight would fill
# it. Half a nat is a factor of 1.6, from an even choice to 62 in 100.
LEAST_REACH_NATS = 0.5
BLUE = (0.18, 0.44, 0.70)
ORANGE = "#e07b39"
# from nothing, so that the page's own colour is the ground
SHADES = LinearSegmentedColormap.from_list("shades", [(*BLUE, 0.0), (*BLUE, 1.0)])


def draw_explanation(explanation: Explanation, *, title: bool = False) -> str:
    """The picture as an svg element in the page's colours.

    With `title` it has question, answer and what was found above it, which a page says itself.
    """
    with style(f"{explanation.video_id} {explanation.prompt} {explanation.answer}"):
        return as_svg(picture(explanation, _title(explanation) if title else ""))


def save_explanation(explanation: Explanation, path: Path) -> None:
    """Write the picture to a file; its ending says of which kind: png, svg, pdf.

    Raises:
        ConfigError: if there is no such kind.
    """
    kind = path.suffix.removeprefix(".").lower()
    with style(path.stem):
        figure, out = titled_picture(explanation), io.BytesIO()
        kinds = figure.canvas.get_supported_filetypes()
        if kind not in kinds:
            raise ConfigError(
                f"a picture cannot be written to {path}; end it with .png, .svg or .pdf"
            )
        figure.savefig(out, format=kind, dpi=150, facecolor="white")
    write_whole(path, out.getvalue())


def titled_picture(explanation: Explanation) -> Figure:
    """The picture with question, answer and what was found above it."""
    return picture(explanation, _title(explanation))


def picture(explanation: Explanation, title: str = "") -> Figure:
    """Up to four drawings over one axis of time, and below them some frames.

    From above: some frames; which of them each memory slot holds, and beside it how much it is
    attended to; the attention of each query token over the frames, the mean over layers; how the
    answer's log-probability changes when a stretch of the film is hidden; and where in the
    picture the attention is, if that is known.
    """
    shown = {
        "frames": explanation.frames is not None,
        "slots": True,
        "attention": True,
        "changes": bool(explanation.stretches),
        "places": drawable(explanation),
    }
    heights = {name: height for name, height in HEIGHTS_IN.items() if shown[name]}
    lines = title.count("\n") + 1 if title else 0
    size = WIDTH_IN, sum(heights.values()) + 1.6 + LINE_IN * lines
    figure = Figure(figsize=size, layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    grid = figure.add_gridspec(
        len(heights), 2, height_ratios=list(heights.values()), width_ratios=[7, 1]
    )
    rows = {name: grid[number, :] for number, name in enumerate(heights)}
    if drawable(explanation):
        draw_places(figure, rows.pop("places"), explanation)
    edges = frame_edges(explanation.times_s.double().numpy())
    over_time: dict[str, Axes] = {}
    for number, name in enumerate(rows):
        over_time[name] = axes = figure.add_subplot(grid[number, 0])
        axes.set_xlim(edges[0], edges[-1])
        axes.tick_params(labelbottom=number == len(rows) - 1)
    axes.set_xlabel("time in the film (s)")
    if explanation.frames is not None:
        times_s = explanation.times_s.double().numpy()
        frames_over_time(over_time["frames"], explanation.frames, times_s)
    beside = figure.add_subplot(grid[list(rows).index("slots"), 1], sharey=over_time["slots"])
    _slots(over_time["slots"], beside, explanation, edges)
    scale = figure.add_subplot(grid[list(rows).index("attention"), 1])
    _attention(over_time["attention"], scale, explanation, edges)
    if explanation.stretches:
        _changes(over_time["changes"], explanation, edges)
    return figure


def frame_edges(times_s: Numbers) -> Numbers:
    """Where each of T frames begins and ends on the axis of time, (T+1,): halfway to the next.

    Frames of one and the same moment, such as a single picture, are given a second each.
    """
    if times_s[0] == times_s[-1]:
        times_s = times_s + np.arange(len(times_s))
    gaps = np.diff(times_s) if len(times_s) > 1 else np.ones(1)
    middle = (times_s[1:] + times_s[:-1]) / 2
    return np.concatenate([[times_s[0] - gaps[0] / 2], middle, [times_s[-1] + gaps[-1] / 2]])


def _title(explanation: Explanation) -> str:
    probability = likely(explanation.log_prob, "p = ")
    truth = f", truth: {explanation.truth}" if explanation.truth else ""
    lines = (explanation.prompt, f"→ {explanation.answer} ({probability}{truth})")
    shortened = [textwrap.shorten(line, 110, placeholder=" …") for line in lines]
    found = [textwrap.fill(sentence, 110) for sentence in findings(explanation)]
    return "\n".join([*shortened, *found])


def _heading(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=9)


def frames_over_time(axes: Axes, frames: NDArray[np.uint8], times_s: Numbers) -> None:
    """Some of frames (T,H,W,3) at their times (T,), as many as fit side by side."""
    height, width = frames.shape[1:3]
    side_in = HEIGHTS_IN["frames"] * max(1.0, width / height)
    count = min(len(frames), MOST_FRAMES, int(FRAMES_IN / side_in))
    # in the middle of equal parts, so that the first and the last do not stick out
    chosen = ((np.arange(count) + 0.5) * len(frames) / count).astype(int)
    for t in chosen:
        image = Image.fromarray(frames[t])
        pixels = round(HEIGHTS_IN["frames"] * 72 * 2)
        image.thumbnail((round(pixels * max(1.0, width / height)), pixels))
        box = OffsetImage(np.asarray(image), zoom=HEIGHTS_IN["frames"] * 72 / image.height)
        axes.add_artist(AnnotationBbox(box, (times_s[t], 0.5), frameon=False, pad=0))
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(bottom=False)


def _slots(axes: Axes, beside: Axes, explanation: Explanation, edges: Numbers) -> None:
    slots = explanation.slots.double().numpy()
    rows = np.arange(len(slots) + 1) + 0.5
    axes.pcolormesh(edges, rows, slots, cmap=SHADES, vmin=0, vmax=1, rasterized=True)
    axes.invert_yaxis()
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_ylabel("memory slot")
    _heading(axes, "Which frames each slot holds (full colour: all of the frame)")
    attention = explanation.slot_attention.mean(dim=(0, 1)).double().numpy()
    beside.barh(np.arange(len(slots)) + 1, attention, color=BLUE, height=0.7)
    beside.tick_params(labelleft=False)
    beside.xaxis.set_major_locator(MaxNLocator(3))
    _heading(beside, "attention")


def _attention(axes: Axes, scale: Axes, explanation: Explanation, edges: Numbers) -> None:
    attention = explanation.frame_attention.mean(dim=0).double().numpy()
    rows = np.arange(len(attention) + 1) + 0.5
    mesh = axes.pcolormesh(edges, rows, attention, cmap=SHADES, vmin=0, rasterized=True)
    axes.invert_yaxis()
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_ylabel("query token")
    even = 1 / attention.shape[1]
    _heading(axes, f"Attention over the frames, through the slots (even would be {even:.2g} each)")
    scale.axis("off")
    bar = axes.figure.colorbar(mesh, ax=scale, location="left", fraction=0.4, aspect=8)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(3))


def _changes(axes: Axes, explanation: Explanation, edges: Numbers) -> None:
    """A bar a stretch, downwards where hiding it makes the answer less probable."""
    left, right = (edges[list(side)] for side in zip(*explanation.stretches, strict=True))
    changes = explanation.changes.double().numpy()
    colours = [BLUE if change < 0 else ORANGE for change in changes]
    gap = 0.004 * (edges[-1] - edges[0])
    axes.bar(left + gap, changes, right - left - 2 * gap, align="edge", color=colours)
    axes.axhline(0, color=INK, linewidth=0.8)
    reach = max(LEAST_REACH_NATS, 1.15 * float(np.abs(changes).max()))
    axes.set_ylim(-reach, reach)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylabel("Δ log p (nats)")
    _heading(axes, "What hiding a stretch does to the answer (down: the stretch speaks for it)")
