"""ELV-Halluc: triplets of captions of long videos, by aspect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.data.readers.annotations import listed, read_rows
from mmavlm.data.readers.benchmark import QUESTION, FilmsInFolder, yes_or_no
from mmavlm.data.readers.json_files import require
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.values import absent, shown
from mmavlm.data.sources import film_at
from mmavlm.metrics.parsing import KINDS

if TYPE_CHECKING:
    from mmavlm.metrics.benchmarks import Benchmark

CAPTION_QUESTION = "Is the following caption totally correct? Reply with 'Yes' or 'No' only."
PLACES = ("ELV_Halluc.jsonl", "data/ELV_Halluc.jsonl")


class ELVHallucReader(FilmsInFolder):
    """`ELV_Halluc.jsonl`: three rows a triplet, `{aspect, caption_type, ref_answer, …}`.

    `caption_type` is ground_truth, in_video or out_video; three rows in a row, one of each kind and
    about one film, are a triplet, as the benchmark's eval.py takes them. Which keys hold the film
    and the question is said by `video_key` and `question_key`: the first of those named that a row
    has. A caption without a question gets the benchmark's own. Films lie below `videos`.
    (hlsv02/ELV-Halluc.)
    """

    name = "ELV-Halluc"

    def __init__(
        self,
        folder: str = ".",
        prompt: str = QUESTION,
        parsing: str = "strict",
        videos: str = "videos",
        video_key: str | Sequence[str] = ("video", "video_path", "video_name", "video_id"),
        question_key: str | Sequence[str] = ("question", "prompt", "caption"),
    ) -> None:
        super().__init__(folder, prompt, parsing, videos)
        self.video_key = tuple(listed(video_key))
        self.question_key = tuple(listed(question_key))

    def scores(self, tasks: Sequence[str]) -> Benchmark:
        """Accuracies of pairs and their ratio, by aspect and over all."""
        from mmavlm.metrics.benchmarks import elv_halluc

        return elv_halluc(tasks, self.parsing)

    def entries(self, root: Path, tasks: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """The rows by aspect, each with the number of its triplet."""
        path = next((root / p for p in PLACES if (root / p).is_file()), root / PLACES[0])
        rows = list(read_rows(require(path)))
        for number, start in enumerate(range(0, len(rows), len(KINDS))):
            triplet = rows[start : start + len(KINDS)]
            self._check_film(triplet)
            for row in triplet:
                aspect = _aspect(row)
                if not tasks or aspect in (*tasks, ""):
                    values = {**row.values, "triplet": f"triplet {number}"}
                    yield aspect, replace(row, values=values)

    def items(self, root: Path, task: str, row: Row) -> list[Item]:
        """The question of a row."""
        row.text("aspect")
        kind = row.text("caption_type")
        if kind not in KINDS:
            raise row.error(f"'caption_type' must be one of {', '.join(KINDS)}, got {kind!r}")
        video_key = self._key(row, self.video_key, "video_key")
        video = row.text(video_key)
        key = self._key(row, self.question_key, "question_key")
        question = row.text(key)
        if key == "caption":
            question = f"{CAPTION_QUESTION}\n{question}"
        truth = yes_or_no(row, "ref_answer")
        return [
            Item.question(
                item_id=f"{row.values['triplet']}, {kind}",
                video_id=video,
                source=film_at(row.below(root / self.videos, video, video_key)),
                prompt=self.ask(question),
                target=truth,
                task=task,
                references=(truth,),
                meta={"triplet": row.values["triplet"], "kind": kind},
            )
        ]

    def _check_film(self, triplet: Sequence[Row]) -> None:
        """Refuse rows about several films: where a row is lost all triplets behind it are wrong."""
        films: dict[str, str] = {}  # and under which key it is named
        for row in triplet:
            if key := self._present(row, self.video_key):
                with suppress(DataError):  # told where the row is read
                    films.setdefault(row.text(key), key)
        if len(films) > 1:
            named = ", ".join(sorted({repr(key) for key in films.values()}))
            about = ", ".join(map(shown, sorted(films)))
            raise triplet[0].error(
                f"three rows from here on are a triplet, but are about {about} by {named}; "
                "a row before is missing or out of its place: get the file anew"
            )

    @staticmethod
    def _present(row: Row, keys: Sequence[str]) -> str | None:
        return next((key for key in keys if not absent(row.values.get(key))), None)

    def _key(self, row: Row, keys: Sequence[str], setting: str) -> str:
        if key := self._present(row, keys):
            return key
        there = sorted(key for key in map(str, row.values) if key != "triplet")
        raise row.error(
            f"none of the keys {', '.join(keys)} is there; the row has {there}. Name the right one "
            f"with data.reader.{setting}=[…]"
        )


def _aspect(row: Row) -> str:
    """The aspect of a row as a task, "" if it names none, which is told where the row is read."""
    with suppress(DataError):
        return "_".join(row.text("aspect").split())
    return ""
