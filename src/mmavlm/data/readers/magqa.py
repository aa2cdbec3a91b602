"""Questions that a film answers several times while it runs (MAGQA)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.settings import whole_at_least
from mmavlm.data.readers.duet import AnsweringReader, event_truth, item
from mmavlm.data.readers.layout import Layout
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.timed import VIDEO, Answer, Said, role_of, video_of
from mmavlm.data.readers.values import absent

TASK = "magqa"
LAYOUT = Layout(("conversation",), (*VIDEO, "question_id", "answer", "video_start_time", "split"))
USUAL_FPS = 2.0  # at which MMDuet sees the films of this set
SLACK = 1e-6


class MAGQAReader(AnsweringReader):
    """MMDuet's questions, `{"video_uid", "conversation": [{"role", "time", "content"}]}`.

    Turns of the assistant may have a `timespan`, from when to when the answer is seen, and
    `"learn": false`. Rows of the published test are read, too: `{"question_id", "video",
    "conversation", "answer": [{"content", "time": [start, stop]}]}`. In training the film begins up
    to `lead_in` frames before the first question, a number that is drawn, and at `video_start_time`
    at the latest; with None, and elsewhere, it begins at its start, or there. See `AnsweringReader`
    for other settings. (arXiv 2411.17991)

    Raises:
        ConfigError: if a setting cannot be.
    """

    layout = LAYOUT

    def __init__(self, lead_in: int | None = 20, **settings: Any) -> None:
        super().__init__(**settings)
        whole_at_least("data.reader", 0, lead_in=lead_in)
        self.lead_in = lead_in

    def items(self, row: Row, film: Callable[..., Medium], split: str) -> list[Item]:
        """The item of a row."""
        video = video_of(row)
        name = row.name("question_id", f"{video}, {row.place}")
        said = sorted(self._said(row, name), key=lambda one: one.time_s)
        if not said or said[0].role != "user":
            raise row.error("'conversation' does not begin with a question of the user; give one")
        start_s, frames = self._start(row, said[0].time_s, name, split)
        shown = film(video, start_s)
        turns = list(self.answered(said, shown, split))
        first = next(n for n, turn in enumerate(turns) if turn.role != "system")
        if frames == 1 and turns[first].role == "stream":
            turns[first] = replace(turns[first], labels=())  # as published: it teaches nothing
        return [item(name, TASK, turns, shown, event_truth(name, shown, said))]

    def _said(self, row: Row, name: str) -> list[Said]:
        said: list[Said] = []
        answers: list[Answer] = []
        for turn in row.each("conversation", "turn"):
            if role_of(turn) == "user":
                said.append(Said("user", turn.text("content"), turn.seconds("time") or 0.0))
            else:
                answers.append(Answer.of(turn, "content"))
        if not absent(row.values.get("answer")):
            for one in row.each("answer", "answer"):
                seen = Row(
                    one.path, one.place, {**one.values, "time": None, "seen": one.need("time")}
                )
                answers.append(Answer.of(seen, "content", "seen"))
        return [*said, *self.said(answers, name)]

    def _start(self, row: Row, asked_s: float, name: str, split: str) -> tuple[float, int | None]:
        """Where the film begins, and how many frames come before the question if that is drawn."""
        latest_s = row.seconds("video_start_time")
        if split != "train" or self.lead_in is None:
            return min(latest_s or 0.0, asked_s), None
        fps = self.fps or USUAL_FPS
        asked = math.ceil(asked_s * fps - SLACK)
        least = 0 if latest_s is None else max(asked - int(latest_s * fps + SLACK), 0)
        drawn = least + int(self.drawn(name, "lead_in").random() * (asked - least + 1))
        frames = min(drawn, self.lead_in)
        return (asked - frames) / fps, frames
