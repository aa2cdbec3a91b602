"""Contact sheets of the first films whose questions say which moments show the answer."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.data.readers.own import EVIDENCE
from mmavlm.data.sources import FrameSource
from mmavlm.data.subtitles import subtitles_of
from mmavlm.metrics import Prediction
from mmavlm.report import ContactSheet, SheetFrame, SheetQuestion
from mmavlm.run.films import small_film

FILMS = 3
QUESTIONS = 14  # of a film
FRAMES = 24  # of a film, and those that show an answer

Asked = tuple[Item, Prediction]


def contact_sheets(
    items: Iterable[Item],
    answered: Mapping[str, Prediction],
    films: int = FILMS,
    play_s: float = 0.0,
) -> list[ContactSheet]:
    """A sheet for each of the first `films` with questions that have evidence; `answered` by item.

    Films that are no longer there, since their features are cached, are left out. Of the others
    the first `play_s` seconds are to play.

    Raises:
        VideoError: naming a film that cannot be read.
    """
    by_film: dict[Path, list[Asked]] = {}
    for item in with_evidence(items):
        if item.item_id in answered:
            film = item.conversation.media[0].source
            by_film.setdefault(film, []).append((item, answered[item.item_id]))
    there = (path for path in by_film if path.exists())
    return [_sheet(path, by_film[path], play_s) for path in islice(there, films)]


def with_evidence(items: Iterable[Item]) -> list[Item]:
    """The items that say which moments show the answer."""
    return [item for item in items if item.meta.get(EVIDENCE) and item.conversation.media]


def _sheet(path: Path, asked: Sequence[Asked], play_s: float) -> ContactSheet:
    """Frames spread over a film, and the nearest one before each moment of evidence."""
    source = FrameSource(path)
    times_s = source.times_s
    chosen = _spread_over_tasks(asked)
    spread = np.linspace(0, len(times_s) - 1, min(FRAMES, len(times_s))).round()
    # half a thousandth: moments are rounded where they are written
    shows = [[bisect_right(times_s, t + 5e-4) - 1 for t in i.meta[EVIDENCE]] for i, _ in chosen]
    shown = sorted({*map(int, spread), *(frame for frames in shows for frame in frames)})
    lines = _lines(path, times_s[shown])
    frames = [
        SheetFrame(picture, float(at_s), line)
        for picture, at_s, line in zip(
            source.pictures(times_s[shown].tolist()), times_s[shown], lines, strict=True
        )
    ]
    questions = [
        _question(item, row, [shown.index(frame) for frame in evidence])
        for (item, row), evidence in zip(chosen, shows, strict=True)
    ]
    name = asked[0][1].video_id
    played = small_film(Medium(medium_id=name, source=path), play_s) if play_s else None
    return ContactSheet(name, frames, questions, played)


def _spread_over_tasks(asked: Sequence[Asked]) -> list[Asked]:
    """The first questions of each task in turn, until there are enough; then task by task."""
    by_task: dict[str, list[Asked]] = {}
    for one in asked:
        by_task.setdefault(one[0].task, []).append(one)
    turns = [one for turn in zip_longest(*by_task.values()) for one in turn if one is not None]
    order = list(by_task)
    return sorted(turns[:QUESTIONS], key=lambda one: order.index(one[0].task))


def _lines(path: Path, times_s: np.ndarray) -> list[str]:
    """What is said in a film while each of the frames at ascending times is shown."""
    lines = [""] * len(times_s)
    for begin_s, _, line in subtitles_of(Medium(medium_id=path.name, source=path), True):
        place = max(0, bisect_right(times_s, begin_s + 5e-4) - 1)
        lines[place] = f"{lines[place]} {line}".strip()
    return lines


def _question(item: Item, row: Prediction, evidence: Sequence[int]) -> SheetQuestion:
    film = item.conversation.media[0]
    part = None if film.end_s is None else (film.start_s, film.end_s)
    said = (row.answers or row.ranking)[0].text
    return SheetQuestion(row.task, row.prompt, said, row.truth, row.right, evidence, part)
