"""HallusionBench, the part about frames of videos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.data.readers.annotations import read_list
from mmavlm.data.readers.benchmark import BenchmarkReader
from mmavlm.data.readers.entries import Found
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.values import shown

if TYPE_CHECKING:
    from mmavlm.metrics.benchmarks import Benchmark

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
        from mmavlm.metrics.benchmarks import hallusionbench

        return hallusionbench(tasks, self.parsing)

    def entries(self, root: Path, tasks: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """The rows about videos."""
        path = root / "HallusionBench.json"
        found = [row for row in read_list(path) if _subcategory(row) in (SUBCATEGORY, None)]
        if not any(map(_subcategory, found)):
            raise DataError(
                f"{path} has no rows of subcategory {SUBCATEGORY!r}; the first releases had none, "
                "get the current file"
            )
        yield from ((SUBCATEGORY, row) for row in found)

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """The questions, each with the sizes of its figure and pair, and what was left out."""
        found = super().read(root, split, task)
        members: dict[str, set[str]] = defaultdict(set)
        for _, row in self.entries(Path(root) / self.folder, ()):
            with suppress(DataError):  # told where the rows are read
                group, figure, question = _names(row)
                members[f"{group}_{figure}"].add(question)
                members[f"{group}, {question}"].add(figure)
        sized = [replace(item, meta=_with_sizes(item.meta, members)) for item in found.items]
        return found._replace(items=sized)

    def items(self, root: Path, task: str, row: Row) -> list[Item]:
        """The question of a row."""
        truth = TRUTHS.get(row.text("gt_answer"))
        if truth is None:
            raise row.error(f"'gt_answer' must be 0 or 1, got {shown(row.values['gt_answer'])}")
        if row.text("visual_input") == "0":
            raise row.error("'visual_input' is 0: a question without a picture")
        group, figure, question = _names(row)
        picture = row.below(root, row.text("filename"), "filename")
        frames = picture.with_suffix("")
        return [
            Item.question(
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


def _subcategory(row: Row) -> str | None:
    """What a row is about, None if it does not say, which is told where the row is read."""
    with suppress(DataError):
        return row.text("subcategory")
    return None


def _names(row: Row) -> tuple[str, str, str]:
    """A row's set, and its figure and question there."""
    keys = ("category", "subcategory", "set_id")
    return "_".join(map(row.text, keys)), row.text("figure_id"), row.text("question_id")


def _with_sizes(meta: Mapping[str, Any], members: Mapping[str, set[str]]) -> dict[str, Any]:
    sizes = {f"{key}_size": len(members[meta[key]]) for key in ("figure", "pair")}
    return {**meta, **sizes}
