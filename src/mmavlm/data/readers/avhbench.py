"""AVHBench: what is heard taken for seen, what is seen taken for heard, and films with both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.data.readers.annotations import read_list
from mmavlm.data.readers.benchmark import QUESTION, BenchmarkReader, yes_or_no
from mmavlm.data.readers.heard import Sense, heard, hearing
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.values import shown
from mmavlm.data.sources import film_at
from mmavlm.metrics.parsing import CAPTIONING

if TYPE_CHECKING:
    from mmavlm.metrics.benchmarks import Benchmark


TASKS = {
    "Video-driven Audio Hallucination": "audio",
    "Audio-driven Video Hallucination": "video",
    "AV Matching": "matching",
    "AV Captioning": CAPTIONING,
}


class AVHBenchReader(BenchmarkReader):
    """`json/*.json`: lists of `{video_id, task, text, label}`.

    The film of a row is `video/<video_id>.mp4`; those that end in `_swap` have another film's
    sound. A label is Yes or No, or, of AV Captioning, a caption, which is asked for by the text as
    it stands, without `prompt`. Of each film the model gets what `show` names; where `clips`, the
    settings of what is taken of a sound, are None, it hears nothing and gets the pictures alone.
    (kaist-ami/AVHBench.)

    Raises:
        ConfigError: if `show` names something twice, something unknown, or sound alone where
            nothing can be heard.
    """

    name = "AVHBench"
    parts = tuple(TASKS.values())

    def __init__(
        self,
        folder: str = ".",
        prompt: str = QUESTION,
        parsing: str = "strict",
        show: Sequence[Sense] = ("sound", "film"),
        clips: Any = None,
    ) -> None:
        super().__init__(folder, prompt, parsing)
        self.show = hearing(show, clips)

    def scores(self, tasks: Sequence[str]) -> Benchmark:
        """Yes/no statistics by task and over all, and the scores of captions."""
        from mmavlm.metrics.benchmarks import avhbench

        return avhbench(tasks, self.parsing)

    def entries(self, root: Path, tasks: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """The questions, file by file; one of no known task is given to be refused."""
        folder = root / "json"
        if not (paths := sorted(folder.glob("*.json"))):
            raise DataError(
                f"annotation {folder}/*.json does not exist; data.root must hold json/ and video/"
            )
        for row in (row for path in paths for row in read_list(path)):
            said = row.values.get("task")
            task = TASKS.get(said, "") if isinstance(said, str) else ""
            if not tasks or task in (*tasks, ""):
                yield task, row

    def items(self, root: Path, task: str, row: Row) -> list[Item]:
        """The question of a row."""
        if not task:
            known = ", ".join(TASKS)
            raise row.error(f"'task' must be one of {known}, got {shown(row.need('task'))}")
        video, text = row.text("video_id"), row.text("text")
        captioning = task == CAPTIONING
        truth = row.text("label") if captioning else yes_or_no(row, "label")
        item = Item.question(
            item_id=f"{task}, {video}, {text}",
            video_id=video,
            source=film_at(row.below(root / "video", video, "video_id")),
            prompt=text if captioning else self.ask(text),
            target=truth,
            task=task,
            references=(truth,),
        )
        return [replace(item, conversation=heard(item.conversation, self.show))]
