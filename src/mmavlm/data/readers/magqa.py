"""Questions that a film answers several times while it runs (MAGQA)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.settings import whole_at_least
from mmavlm.data.readers.duet import DuetReader, answered, event_truth, item
from mmavlm.data.readers.layout import Layout
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.timed import VIDEO, Answer, Insertion, Said, role_of, video_of
from mmavlm.data.readers.values import absent

TASK = "magqa"
LAYOUT = Layout(("conversation",), (*VIDEO, "question_id", "answer", "video_start_time", "split"))
USUAL_FPS = 2.0  # at which MMDuet sees the films of this set
SLACK = 1e-6


class MAGQAReader(DuetReader):
    """MMDuet's questions, `{"video_uid", "conversation": [{"role", "time", "content"}]}`.

    Turns of the assistant may have a `timespan`, from when to when the answer is seen, and
    `"learn": false`. Rows of the published test are read, too: `{"question_id", "video",
    "conversation", "answer": [{"content", "time": [start, stop]}]}`. `insert_at` may say at which
    share of the span an answer is said (`Insertion`). In training the film begins up to `lead_in`
    frames before the first question, a number that is drawn, and at `video_start_time` at the
    latest; with None, and elsewhere, it begins at its start, or there. With `rest` the film goes on
    behind the last answer in training, as it does elsewhere. (arXiv 2411.17991)

    Raises:
        ConfigError: if a setting cannot be.
    """

    layout = LAYOUT

    def __init__(
        self,
        insert_at: float | Sequence[float] | None = None,
        lead_in: int | None = 20,
        rest: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        whole_at_least("data.reader", 0, lead_in=lead_in)
        self.insertion = Insertion(insert_at)
        self.lead_in = lead_in
        self.rest = rest

    def items(self, row: Row, film: Callable[..., Medium], split: str) -> list[Item]:
        """The item of a row."""
        video = video_of(row)
        name = row.name("question_id", f"{video}, {row.place}")
        said = sorted(self._said(row, name), key=lambda one: one.time_s)
        if not said or said[0].role != "user":
            raise row.error("'conversation' does not begin with a question of the user; give one")
        start_s, frames = self._start(row, said[0].time_s, name, split)
        shown = film(video, start_s)
        turns = list(answered(said, shown, rest=self.rest or split != "train"))
        if frames == 1 and turns[0].role == "stream":
            turns[0] = replace(turns[0], labels=())  # as published: one frame teaches nothing
        return [item(name, TASK, self.opened(turns), shown, event_truth(name, shown, said))]

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
        for number, answer in enumerate(answers):
            said.append(self.insertion.said(answer, self.drawn(name, str(number))))
        return said

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
