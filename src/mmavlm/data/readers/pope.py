"""POPE for video: questions whether an object is in a film."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmavlm.core.items import Item
from mmavlm.data.readers.annotations import read_rows
from mmavlm.data.readers.benchmark import QUESTION, BenchmarkReader, yes_or_no
from mmavlm.data.readers.heard import Sense, heard, hearing
from mmavlm.data.readers.json_files import require
from mmavlm.data.readers.rows import Row

if TYPE_CHECKING:
    from mmavlm.metrics.benchmarks import Benchmark

STRATEGIES = ("random", "popular", "adversarial")


class PopeReader(BenchmarkReader):
    """`<pope>/pope_{random,popular,adversarial}.jsonl`: `{question_id, video, text, label}`.

    The keys are POPE's, with `video`, a path below the root, in place of `image`; `start_s` and
    `end_s` may bound a stretch of it. `python -m mmavlm.pope` writes such files from captions. A
    model gets of each film what `show` names; where `clips`, the settings of what is taken of a
    sound, are None, it hears nothing and gets the pictures alone. (RUCAIBox/POPE.)

    Raises:
        ConfigError: if `show` names something twice, something unknown, or sound alone where
            nothing can be heard.
    """

    name = "POPE"
    parts = STRATEGIES

    def __init__(
        self,
        folder: str = ".",
        prompt: str = QUESTION,
        parsing: str = "strict",
        pope: str = "pope",
        show: Sequence[Sense] = ("film",),
        clips: Any = None,
    ) -> None:
        super().__init__(folder, prompt, parsing)
        self.pope = pope
        self.show = hearing(show, clips)

    def scores(self, tasks: Sequence[str]) -> Benchmark:
        """Yes/no statistics by the choice of absent objects."""
        from mmavlm.metrics.benchmarks import pope

        return pope(tasks, self.parsing)

    def entries(self, root: Path, tasks: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """The questions, by the choice of absent objects."""
        for task in tasks or STRATEGIES:
            path = require(root / self.pope / f"pope_{task}.jsonl")
            yield from ((task, row) for row in read_rows(path))

    def items(self, root: Path, task: str, row: Row) -> list[Item]:
        """The question of a row."""
        if "video" not in row.values and "image" in row.values:
            raise row.error("'image' in place of 'video': this is a file of POPE for images")
        video, truth = row.text("video"), yes_or_no(row, "label")
        start_s, end_s = row.stretch_s()
        item = Item.question(
            item_id=f"{task}, {row.text('question_id')}",
            video_id=video,
            source=row.below(root, video, "video"),
            prompt=self.ask(row.text("text")),
            target=truth,
            task=task,
            start_s=start_s,
            end_s=end_s,
            references=(truth,),
        )
        return [replace(item, conversation=heard(item.conversation, self.show))]
