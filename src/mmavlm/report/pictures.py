"""What a report shows, as single pictures: for pages of others, which take pixels alone."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mmavlm.model.explain import Explanation
from mmavlm.report.contents import Confusion, SampleAnswer, Similarity
from mmavlm.report.drawing import INK, style
from mmavlm.report.explanation import titled_picture

Pixels = NDArray[np.uint8]  # (H,W,3)

DPI = 120
WIDTH_IN = 7.0
STRIP_IN = 2.0  # the height of frames at most
LINE_IN = 0.19  # of text
LINE_CHARACTERS = 96  # of text that fit into the width
NAME_CHARACTERS = 26  # of a class, film or text beside an axis
ANSWERS = 3  # of a sample, best first
COUNTED = 16  # classes up to which the counts stand in the cells
CELL_IN = 0.3
PAIR_IN = 0.2
# Colours reach over so much of the cosine at least, or differences of no weight would fill them.
LEAST_SPREAD = 0.1
OTHER = "(other)"
EDGE = "#c8c8c8"
BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#2e70b3", "#12365c"])
VERDICTS = {True: ("right", "#1a7f37"), False: ("wrong", "#b3261e"), None: ("", INK)}


def sample_picture(sample: SampleAnswer) -> Pixels:
    """The frames of an item in one strip, and below them question, answers and truth."""
    return _pixels(sample.video_id, lambda: _sample(sample))


def confusion_picture(confusion: Confusion) -> Pixels:
    """The counts of a confusion; colours are shares of the items of a true class."""
    return _pixels(confusion.title, lambda: _confusion(confusion))


def similarity_picture(similarity: Similarity) -> Pixels:
    """A map of cosines for each level side by side; what is framed is true."""
    return _pixels("similarity", lambda: _similarity(similarity))


def explanation_picture(explanation: Explanation) -> Pixels:
    """What an answer rests on, as in the report, with question and answer above it."""
    return _pixels(explanation.video_id, lambda: titled_picture(explanation))


def strip(frames: Sequence[Pixels]) -> Pixels:
    """Frames of one size side by side, white between them."""
    height, width = frames[0].shape[:2]
    gap = np.full((height, max(1, width // 50), 3), 255, np.uint8)
    parts = [part for frame in frames for part in (gap, frame)]
    return np.concatenate(parts[1:], axis=1)


def largest(confusion: Confusion, most: int) -> Confusion:
    """The confusion of the `most` classes with most items; answers of others count as other ones.

    Items of the others are counted among those left out.
    """
    counts = np.asarray(confusion.counts)
    if len(counts) <= most:
        return confusion
    sizes = counts.sum(axis=1)
    kept = np.sort(np.argsort(-sizes, kind="stable")[:most])
    shown = counts[np.ix_(kept, kept)]
    beside = sizes[kept] - shown.sum(axis=1)
    return Confusion(
        title=f"{confusion.title}: the {most} most frequent of {len(counts)} classes",
        classes=[confusion.classes[number] for number in kept],
        counts=np.concatenate([shown, beside[:, None]], axis=1),
        left_out=confusion.left_out + int(sizes.sum() - sizes[kept].sum()),
    )


def _pixels(salt: str, drawn: Callable[[], Figure]) -> Pixels:
    with style(salt):
        figure = drawn()
        figure.set_dpi(DPI)
        figure.set_facecolor("white")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _sample(sample: SampleAnswer) -> Figure:
    verdict, colour = VERDICTS[sample.right]
    answers = zip(sample.answers[:ANSWERS], sample.probabilities, strict=False)
    said = " · ".join(f"{text or '(nothing)'} (p = {p:.2g})" for text, p in answers)
    references = [text for text in sample.references if text != sample.truth]
    paragraphs = [
        (f"{sample.task} · {sample.video_id}", INK),
        (f"question: {sample.prompt}", INK),
        (f"answer: {said or '(none)'}{f' → {verdict}' if verdict else ''}", colour),
        (f"truth: {sample.truth}", INK),
        *([(f"or: {' · '.join(references)}", INK)] if references else []),
    ]
    lines = [
        (line, colour)
        for text, colour in paragraphs
        for line in textwrap.wrap(text, LINE_CHARACTERS, max_lines=3, placeholder=" …")
    ]
    joined = strip(sample.frames) if sample.frames else None
    wide = 1.0 if joined is None else joined.shape[1] / joined.shape[0]
    of_frames = 0.0 if joined is None else min(STRIP_IN, WIDTH_IN / wide)
    of_lines = LINE_IN * (len(lines) + 0.6)
    height = of_frames + of_lines
    figure = Figure(figsize=(WIDTH_IN, height))
    if joined is not None:
        width = of_frames * wide / WIDTH_IN
        axes = figure.add_axes((0, of_lines / height, width, of_frames / height))
        axes.imshow(joined, aspect="auto")
        axes.axis("off")
    for number, (line, of_line) in enumerate(lines):
        y = (of_lines - LINE_IN * (number + 0.4)) / height
        figure.text(0.01, y, line, color=of_line, va="top")
    return figure


def _confusion(confusion: Confusion) -> Figure:
    counts = np.asarray(confusion.counts)
    sizes = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(sizes, 1)
    side = max(2.2, CELL_IN * len(counts)) if len(counts) <= COUNTED else 6.5
    figure = Figure(figsize=(side + 2.6, side + 2.2), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap=BLUES, vmin=0, vmax=1, aspect="auto")
    names = [
        f"{_short(n)} ({size})" for n, size in zip(confusion.classes, sizes[:, 0], strict=True)
    ]
    _label(axes, names, [*map(_short, confusion.classes), OTHER])
    axes.set(ylabel="true class (items)", xlabel="answered")
    if len(counts) <= COUNTED:
        for row, column in np.argwhere(counts):
            light = shares[row, column] > 0.45
            axes.text(column, row, str(counts[row, column]), ha="center", va="center",
                      fontsize=8, color="white" if light else INK)  # fmt: skip
    items, right = int(counts.sum()), int(np.trace(counts[:, :-1]))
    told = f"{right} of {items} right" if items else "no items"
    more = f", {confusion.left_out} more items not shown" if confusion.left_out else ""
    axes.set_title(f"{confusion.title}\n{told}{more}", loc="left", fontsize=9)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("share of the true class")
    return figure


def _similarity(similarity: Similarity) -> Figure:
    levels = similarity.levels
    side = max(2.2, PAIR_IN * len(similarity.films))
    size = len(levels) * (side + 0.8) + 1.8, side + 2.2
    figure = Figure(figsize=size, layout="constrained")
    row_of_axes = figure.subplots(1, len(levels), squeeze=False)[0]
    for number, (axes, (level, matrix)) in enumerate(zip(row_of_axes, levels.items(), strict=True)):
        low, high = _range(matrix)
        image = axes.imshow(matrix, cmap=BLUES, vmin=low, vmax=high, aspect="auto")
        films = [] if number else [*map(_short, similarity.films)]
        _label(axes, films, [*map(_short, similarity.texts)])
        for row, column in np.argwhere(similarity.same):
            corner = column - 0.5, row - 0.5
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#e07b39", linewidth=1.4))
        axes.set_title(f"{level}: {_told(similarity, matrix)}", loc="left", fontsize=9)
        bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_locator(MaxNLocator(4))
    row_of_axes[0].set_ylabel("film")
    figure.supxlabel("text (framed: the film's own, or the same words)", fontsize=9)
    return figure


def _told(similarity: Similarity, matrix: NDArray[np.float32]) -> str:
    """The mean cosine of films with their own texts, and with others."""
    parts = {"own": matrix[similarity.same], "others": matrix[~similarity.same]}
    means = [
        f"{name} {round(float(part.mean()), 2) + 0.0:.2f}"
        for name, part in parts.items()
        if part.size
    ]
    return f"mean cosine {', '.join(means)}".replace("-", "−")


def _range(matrix: NDArray[np.float32]) -> tuple[float, float]:
    low, high = float(matrix.min()), float(matrix.max())
    missing = max(0.0, LEAST_SPREAD - (high - low)) / 2
    return low - missing, high + missing


def _label(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Names beside the rows and below the columns of a map; without any, no marks."""
    size = 7 if max(len(rows), len(columns)) > COUNTED else 8
    axes.set_yticks(range(len(rows)), rows, fontsize=size)
    axes.set_xticks(range(len(columns)), columns, fontsize=size, rotation=90)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(EDGE)


def _short(text: str) -> str:
    """A name that fits beside an axis; of a long one both ends, which tell names apart."""
    line = " ".join(text.split())
    if len(line) <= NAME_CHARACTERS:
        return line
    half = (NAME_CHARACTERS - 1) // 2
    return f"{line[:half]}…{line[-half:]}"
