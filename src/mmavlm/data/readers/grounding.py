"""Searches in films that run: which frames are relevant to a query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.streams import RELEVANCE
from mmavlm.core.turns import FIRST, FrameLabels, Span, Turn
from mmavlm.data.readers.duet import DuetReader, item, truth
from mmavlm.data.readers.layout import Layout
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.sentences import FIND, PLACE, sentences
from mmavlm.data.readers.timed import VIDEO, Said, questioned, spans_s, video_of
from mmavlm.data.readers.values import absent

TASK = "grounding"
LAYOUT = Layout(("timestamps",), (*VIDEO, "query", "question_id", "conversation", "split"))
SLACK = 1e-6


class GroundingReader(DuetReader):
    """MMDuet's searches, `{"video_uid", "query", "timestamps": [[start, stop]]}`.

    Rows of the published test are read, too: `{"question_id", "video", "conversation",
    "timestamps"}`, where the user says the query. In training it is put into one of `prompts`,
    drawn, each with {} for its place; elsewhere it stands alone. Spans that overlap are one.
    (arXiv 2411.17991)

    Raises:
        ConfigError: if a setting cannot be.
    """

    layout = LAYOUT

    def __init__(self, prompts: Sequence[str] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.prompts = sentences(prompts, FIND, place=True)

    def items(self, row: Row, film: Callable[..., Medium], split: str) -> list[Item]:
        """The item of a row."""
        video = video_of(row)
        name = row.name("question_id", f"{video}, {row.place}")
        query = _query(row)
        spans = spans_s(row, "timestamps")
        shown = film(video)
        events = [(start_s, stop_s, "") for start_s, stop_s in spans]
        told = truth(name, shown, events, [query])
        return [item(name, TASK, self.searched(query, name, shown, spans, split), shown, told)]

    def searched(
        self, query: Said, name: str, film: Medium, spans: Sequence[Span] | None, split: str
    ) -> tuple[Turn, ...]:
        """The turns of a search; nothing is known of its frames where there are no spans."""
        prompt = self.one_of(self.prompts, name) if split == "train" else PLACE
        before: tuple[Turn, ...] = ()
        if query.time_s > film.start_s:
            before = (Turn("stream", (FIRST,), until_s=query.time_s),)
        labels = () if spans is None else (FrameLabels(RELEVANCE, self.relevant(spans)),)
        asked = Turn("user", (prompt.replace(PLACE, query.text),))
        return self.opened((*before, asked, Turn("stream", (FIRST,), labels=labels)))

    def relevant(self, spans: Iterable[Span]) -> tuple[Span, ...]:
        """From when to when frames are relevant, both included.

        At a known rate these are the frames shown from the start on, up to that before the one
        shown at the stop, as MMDuet counts them, but one at least. Bounds lie half a step before
        frames, since films of other rates show their frames a little early.
        """
        if self.fps is None:
            return tuple(spans)
        frames = [(int(a * self.fps + SLACK), int(b * self.fps + SLACK)) for a, b in spans]
        return tuple(
            ((first - 0.5) / self.fps, (max(stop, first + 1) - 0.5) / self.fps)
            for first, stop in frames
        )


def _query(row: Row) -> Said:
    if not absent(row.values.get("query")) or absent(row.values.get("conversation")):
        return Said("user", row.text("query"), 0.0)
    asked = questioned(row)
    if len(asked) != 1:
        raise row.error(f"'conversation' has {len(asked)} turns of the user; give one, the query")
    return asked[0]
