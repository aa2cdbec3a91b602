"""VideoHallucer: pairs of a basic and a hallucinated question, by type of hallucination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmavlm.core.items import Item
from mmavlm.data.readers.annotations import read_list
from mmavlm.data.readers.benchmark import BenchmarkReader, yes_or_no
from mmavlm.data.readers.rows import Row

if TYPE_CHECKING:
    from mmavlm.metrics.benchmarks import Benchmark

TYPES = ("object_relation", "temporal", "semantic_detail", "external_factual",
         "external_nonfactual")  # fmt: skip
SIDES = ("basic", "hallucination")


class VideoHallucerReader(BenchmarkReader):
    """`<type>/<type>.json`: a list of `{basic: {video, question, answer}, hallucination: {…}}`.

    Films lie in `<type>/videos/<video>`, the name with its suffix. The five types are those of the
    benchmark's score; `interaction` and `fact_detect` are read when asked for by `data.task`.
    (patrick-tssn/VideoHallucer; the data are on the Hugging Face hub.)
    """

    name = "VideoHallucer"
    parts = (*TYPES, "interaction", "fact_detect")

    def scores(self, tasks: Sequence[str]) -> Benchmark:
        """Paired accuracy by type and over all."""
        from mmavlm.metrics.benchmarks import videohallucer

        return videohallucer(tasks, self.parsing)

    def entries(self, root: Path, tasks: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """The pairs, type by type."""
        for task in tasks or TYPES:
            yield from ((task, row) for row in read_list(root / task / f"{task}.json"))

    def items(self, root: Path, task: str, row: Row) -> list[Item]:
        """Both questions of a pair, or neither."""
        pair = f"{task}, {row.place}"
        return [self._item(root / task, task, row.inner(side), pair, side) for side in SIDES]

    def _item(self, folder: Path, task: str, row: Row, pair: str, side: str) -> Item:
        video, answer = row.text("video"), yes_or_no(row, "answer")
        return Item.question(
            item_id=f"{pair}, {side}",
            video_id=f"{task}/{video}",
            source=row.below(folder / "videos", video, "video"),
            prompt=self.ask(row.text("question")),
            target=answer,
            task=task,
            references=(answer,),
            meta={"pair": pair, "hallucinated": side == "hallucination"},
        )
