"""EventHallusion: yes/no questions about events that priors get wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmavlm.core.items import Item
from mmavlm.data.readers.annotations import read_list
from mmavlm.data.readers.benchmark import BenchmarkReader, yes_or_no
from mmavlm.data.readers.rows import Row
from mmavlm.data.sources import film_at

if TYPE_CHECKING:
    from mmavlm.metrics.benchmarks import Benchmark

# The questions of films with an unexpected event were published under two names.
FILES = {
    "entire": ("entire_questions.json",),
    "interleave": ("interleave_questions.json", "mix_questions.json"),
    "misleading": ("misleading_questions.json",),
}


class EventHallusionReader(BenchmarkReader):
    """`questions/<part>_questions.json`: a list of `{id, questions: [{question, answer}, …]}`.

    Films lie in `videos/<part>/<id>.mp4`. The benchmark's other half, descriptions judged by an
    LLM, is not asked. (Stevetich/EventHallusion.)
    """

    name = "EventHallusion"
    parts = tuple(FILES)

    def scores(self, tasks: Sequence[str]) -> Benchmark:
        """Accuracy by part and over all."""
        from mmavlm.metrics.benchmarks import eventhallusion

        return eventhallusion(tasks, self.parsing)

    def entries(self, root: Path, tasks: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """The films, part by part."""
        for task in tasks or FILES:
            paths = [root / "questions" / name for name in FILES[task]]
            path = next((path for path in paths if path.is_file()), paths[0])
            yield from ((task, row) for row in read_list(path))

    def items(self, root: Path, task: str, row: Row) -> list[Item]:
        """The questions about a film."""
        video = row.text("id")
        rows = row.each("questions", "question")
        source = film_at(row.below(root / "videos" / task, video, "id"))
        truths = [yes_or_no(one, "answer") for one in rows]
        return [
            Item.question(
                item_id=f"{task}/{video}, question {number}",
                video_id=f"{task}/{video}",
                source=source,
                prompt=self.ask(one.text("question")),
                target=truth,
                task=task,
                references=(truth,),
            )
            for number, (one, truth) in enumerate(zip(rows, truths, strict=True))
        ]
