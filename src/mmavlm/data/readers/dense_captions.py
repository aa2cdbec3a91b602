"""Films with a caption for each of their parts, to be narrated while they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.data.readers.annotations import read_object
from mmavlm.data.readers.duet import AnsweringReader, event_truth, item
from mmavlm.data.readers.layout import Layout
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.sentences import NARRATE, sentences
from mmavlm.data.readers.timed import Answer, Said

TASK = "dense_captions"
FILM, CAPTIONS = "video", "captions"
LAYOUT = Layout((FILM, CAPTIONS))


class DenseCaptionReader(AnsweringReader):
    """MMDuet's captions, `{film: {name: [{"time", "text", "timespan"}]}}`: an item a name.

    `time` is when a caption is said, `timespan` from when to when its part is seen; one of both may
    be missing. One with `"learn": false` is said and not learned. What the user asks first is one
    of `prompts`, drawn. See `AnsweringReader` for other settings. (arXiv 2411.17991)

    Raises:
        ConfigError: if a setting cannot be.
    """

    layout = LAYOUT
    keys = ("text", "timespan")  # of a caption's words and part

    def __init__(self, prompts: Sequence[str] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.prompts = sentences(prompts, NARRATE, place=False)

    def rows(self, root: Path, split: str) -> Iterator[Row]:
        """A row for each film, with its lists of captions by name."""
        for name, row in read_object(self.files.path(root, split)):
            values = {FILM: name, CAPTIONS: row.values} if row.broken is None else {}
            yield Row(row.path, row.place, values, row.broken)

    def items(self, row: Row, film: Callable[..., Medium], split: str) -> list[Item]:
        """An item for each list of captions of a film; an empty list has none."""
        shown = film(row.text(FILM))
        lists = Row(row.path, row.place, row.values[CAPTIONS])
        return [
            self.narrated(f"{shown.medium_id}/{key}", shown, lists.each(key, "caption"), split)
            for key, captions in lists.values.items()
            if captions
        ]

    def narrated(self, name: str, film: Medium, captions: Sequence[Row], split: str) -> Item:
        """The item of a film whose captions are said as it runs."""
        asked = Said("user", self.one_of(self.prompts, name), film.start_s)
        answers = (Answer.of(caption, *self.keys) for caption in captions)
        said = [asked, *self.said(answers, name)]
        turns = self.answered(said, film, split)
        return item(name, TASK, turns, film, event_truth(name, film, said))
