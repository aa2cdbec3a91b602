"""Scores as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from mmavlm.metrics.headline import Score

GUESS = "guess: the most frequent true answer given to all, a random order, or the best rhythm."
WIDEST_NAME = 38  # columns that a name takes before it is folded


def score_table(title: str, scores: Sequence[Score]) -> Table:
    """A row a score, narrow enough for 80 columns; a column of what none has is left out.

    `title` is printed as it stands.
    """
    guesses = any(score.guess is not None for score in scores)
    bounded = any(score.interval for score in scores)
    lower = any(score.lower_is_better for score in scores)
    notes = [
        "95 %: interval over the choice of test items." if bounded else "",
        GUESS if guesses else "",
        "↓ lower is better." if lower else "",
    ]
    table = Table(
        title=escape(title),
        caption=" ".join(filter(None, notes)),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    longest = max((len(score.name) for score in scores), default=0)
    table.add_column("score", overflow="fold", no_wrap=longest <= WIDEST_NAME)
    table.add_column("in words", overflow="fold")
    for name in ("value", "95 %", "items", *(["guess"] if guesses else [])):
        table.add_column(name, justify="right", overflow="fold")  # folded, and never cut off
    for score in scores:
        table.add_row(*_cells(score)[: 6 if guesses else 5])
    return table


def _cells(score: Score) -> list[str]:
    return [
        escape(score.name),
        escape(score.meaning.short) + (" ↓" if score.lower_is_better else ""),
        score.shown,
        score.interval,
        "" if score.items is None else str(score.items),
        "" if score.guess is None else f"{100 * score.guess:.1f} %",
    ]
