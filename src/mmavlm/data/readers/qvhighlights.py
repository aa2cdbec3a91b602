"""QVHighlights: what of a film is relevant to a query, and how salient each clip of it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Span
from mmavlm.data.readers.duet import item
from mmavlm.data.readers.grounding import GroundingReader
from mmavlm.data.readers.layout import Layout
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.timed import Said, merged, spans_s
from mmavlm.data.readers.values import absent, shown

TASK = "highlights"
WINDOWS, CLIPS, RATINGS = "relevant_windows", "relevant_clip_ids", "saliency_scores"
LAYOUT = Layout(("qid", "query", "vid", "duration"), (WINDOWS, CLIPS, RATINGS, "split"))
CLIP_S = 2.0
BEST, ANNOTATORS = 4, 3


class QVHighlightsReader(GroundingReader):
    """Rows `{"qid", "query", "vid", "duration"}` of a jsonl a split, films by the name of `vid`.

    `relevant_windows` are spans in seconds, `relevant_clip_ids` clips of two seconds, and
    `saliency_scores` how three annotators rated each of these, from 0 to 4. Rows of the test may
    have none of them, since they are secret. (arXiv 2107.09609)

    Raises:
        ConfigError: if a setting cannot be.
    """

    layout = LAYOUT

    def rows(self, root: Path, split: str) -> Iterator[Row]:
        """The rows of a split's file; `video` names a film beside `vid`."""
        for row in super().rows(root, split):
            yield replace(row, values={**row.values, "video": row.values.get("vid")})

    def items(self, row: Row, film: Callable[..., Medium], split: str) -> list[Item]:
        """The item of a row."""
        name, query = row.text("qid"), Said("user", row.text("query"), 0.0)
        shown_film = film(row.text("vid"))
        told = _ratings(row, name, shown_film)
        if not absent(row.values.get(WINDOWS)):
            spans: tuple[Span, ...] | None = spans_s(row, WINDOWS)
        elif told is not None:
            spans = merged((clip * CLIP_S, (clip + 1) * CLIP_S) for clip in told["clips"])
        elif split == "test":
            spans = None
        else:
            raise row.error(
                f"keys {WINDOWS!r} and {CLIPS!r} are missing or empty; give one of them"
            )
        turns = self.searched(query, name, shown_film, spans, split)
        return [item(name, TASK, turns, shown_film, told)]


def _ratings(row: Row, name: str, film: Medium) -> dict[str, Any] | None:
    """How clips were rated, as a row of a truth file."""
    if absent(row.values.get(CLIPS)) and absent(row.values.get(RATINGS)):
        return None
    clips, ratings = row.need(CLIPS), row.need(RATINGS)
    duration_s = row.seconds("duration")
    if duration_s is None:
        raise row.error("key 'duration' is missing or empty; give the seconds of the film")
    count = int(duration_s / CLIP_S)
    if not _whole(clips, count - 1) or len({*clips}) < len(clips):
        raise row.error(
            f"{CLIPS!r} must be different whole numbers from 0 to {count - 1}, which are the clips "
            f"of {duration_s:g} s, got {shown(clips)}"
        )
    fits = isinstance(ratings, list) and len(ratings) == len(clips)
    if not fits or not all(_whole(r, BEST) and len(r) == ANNOTATORS for r in ratings):
        raise row.error(
            f"{RATINGS!r} must be {ANNOTATORS} whole numbers from 0 to {BEST} for each of "
            f"{len(clips)} clips, got {shown(ratings)}"
        )
    return {
        "question_id": name,
        "video_id": film.medium_id,
        "duration_s": duration_s,
        "clips": clips,
        "ratings": ratings,
    }


def _whole(numbers: Any, most: int) -> bool:
    """Whether these are a list of whole numbers from 0 on."""
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n <= most for n in numbers)
