"""HallusionBench, the part about frames of videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmavlm.data.readers.annotations import Row, read_list
from mmavlm.data.readers.benchmark import BenchmarkReader
from mmavlm.errors import DataError
from mmavlm.interfaces import VideoItem
from mmavlm.metrics.benchmarks import Benchmark, hallusionbench

SUBCATEGORY = "video"
TRUTHS = {"0": "no", "1": "yes"}


class HallusionBenchReader(BenchmarkReader):
    """`HallusionBench.json`, rows of subcategory `video`.

    A row is `{category, subcategory, visual_input, set_id, figure_id, question_id, question,
    gt_answer: "0" or "1", filename}`. A file name leads to one picture below the root, which shows
    frames side by side: the model sees it as a film of one frame. Where a folder of the same name
    without suffix holds frames (frame000001.jpg …), that is taken instead. Figure 0 of a set is as
    filmed; others are edited (reversed, shuffled) and count as hard. (tianyi-lab/HallusionBench.)
    """

    name = "HallusionBench"
    parts = (SUBCATEGORY,)

    def scores(self, tasks: Sequence[str]) -> Benchmark:
        """Accuracy by question, figure and pair."""
        return hallusionbench(tasks, self.parsing)

    def entries(self, root: Path, tasks: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """The rows about videos."""
        path = root / "HallusionBench.json"
        found = [r for r in read_list(path) if r.values.get("subcategory") == SUBCATEGORY]
        if not found:
            raise DataError(
                f"{path} has no rows of subcategory {SUBCATEGORY!r}; the first releases had none, "
                "get the current file"
            )
        yield from ((SUBCATEGORY, row) for row in found)

    def items(self, root: Path, task: str, row: Row) -> list[VideoItem]:
        """The question of a row."""
        truth = TRUTHS.get(row.text("gt_answer"))
        if truth is None:
            raise row.error(f"'gt_answer' must be 0 or 1, got {row.values['gt_answer']!r}")
        if row.text("visual_input") == "0":
            raise row.error("'visual_input' is 0: a question without a picture")
        group, figure, question = (
            "_".join(row.text(key) for key in keys)
            for keys in (("category", "subcategory", "set_id"), ("figure_id",), ("question_id",))
        )
        picture = row.below(root, row.text("filename"))
        frames = picture.with_suffix("")
        return [
            VideoItem(
                item_id=f"{group}_{figure}_{question}",
                video_id=f"{group}_{figure}",
                source=frames if frames.is_dir() else picture,
                prompt=self.ask(row.text("question")),
                target=truth,
                task=task,
                references=(truth,),
                meta={
                    "figure": f"{group}_{figure}",
                    "pair": f"{group}, {question}",
                    "hard": figure != "0",
                },
            )
        ]
