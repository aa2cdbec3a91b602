"""VidHalluc: actions (yes/no, multiple choice), scene changes, and the order of two actions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmavlm.core.items import Item
from mmavlm.data.readers.benchmark import BenchmarkReader, yes_or_no
from mmavlm.data.readers.json_files import entries
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.values import shown
from mmavlm.data.sources import film_at
from mmavlm.metrics.parsing import ORDERS

if TYPE_CHECKING:
    from mmavlm.metrics.benchmarks import Benchmark

FOLDERS = {"ach_binaryqa": "ACH", "ach_mcq": "ACH", "sth": "STH", "tsh": "TSH"}
# How the published archives unpack, {} being ACH, STH or TSH.
PLACES = ("data/{}", "data/{0}/{0}", "data/{0}_videos/{0}", "data/{}_videos", "{}",
          "data/VidHalluc/data/{}")  # fmt: skip
HINTS = {
    "ach_binaryqa": "Only answer with a single word 'Yes' or 'No'.",
    "ach_mcq": "Select all options that are correct and answer with their letters alone.",
    "sth": "Answer with a single word, 'Yes' or 'No'.",
    "tsh": "Sort the two actions in the order in which they occur: answer AB or BA.",
}
SCENE_QUESTION = "Does a scene change occur in this video?"


class VidHallucReader(BenchmarkReader):
    """The four files of VidHalluc, each an object by pair, clip or number.

    - `ach_binaryqa.json`: `{pair: [{"q": question, "a": {clip: "Yes" or "No"}}]}`
    - `ach_mcq.json`: `{pair: {clip: {"Question", "Choices": {letter: text}, "Correct Answer"}}}`
    - `sth.json`: `{clip: {"Scene change": "Yes" or "No", "Locations"}}`; whether it changes is
      asked, not from where to where
    - `tsh.json`: `{number: {"video", "Question", "Correct Answer": "AB" or "BA"}}`

    Clips lie in `data/{ACH,STH,TSH}/<clip>.mp4`, or where the archives unpack to. What is said
    behind each question (`hints`) is ours: the benchmark's own words are not published with its
    data. (chaoyuli/VidHalluc on the Hugging Face hub.)
    """

    name = "VidHalluc"
    parts = tuple(FOLDERS)

    def scores(self, tasks: Sequence[str]) -> Benchmark:
        """Each kind of question by its own metric."""
        from mmavlm.metrics.benchmarks import vidhalluc

        return vidhalluc(tasks, self.parsing)

    def entries(self, root: Path, tasks: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """One row a question, or a question and its clips."""
        for task in tasks or FOLDERS:
            path = root / f"{task}.json"
            for key, value in entries(path):
                yield from ((task, row) for row in _rows(task, path, key, value))

    def items(self, root: Path, task: str, row: Row) -> list[Item]:
        """The question of a row about each of its clips."""
        if task == "ach_binaryqa":
            truths = row.inner("a")
            return [
                self._item(root, task, row, clip, row.text("q"), yes_or_no(truths, clip),
                           group_size=len(truths.values))
                for clip in truths.values
            ]  # fmt: skip
        if task == "ach_mcq":
            return [self._choice(root, row)]
        if task == "sth":
            truth = yes_or_no(row, "Scene change")
            return [self._item(root, task, row, row.text("clip"), SCENE_QUESTION, truth)]
        order = row.text("Correct Answer").strip().upper()
        if order not in ORDERS:
            raise row.error(f"'Correct Answer' must be AB or BA, got {order!r}")
        return [self._item(root, task, row, row.text("video"), row.text("Question"), order)]

    def _choice(self, root: Path, row: Row) -> Item:
        inner = row.inner("Choices")
        choices = {letter: inner.text(letter) for letter in inner.values}
        right = "".join(c for c in row.text("Correct Answer").upper() if c.isalpha())
        if not right or not set(right) <= choices.keys():
            raise row.error(
                f"'Correct Answer' must be letters of {sorted(choices)}, got "
                f"{shown(row.values['Correct Answer'])}"
            )
        options = "\n".join(f"{letter}. {text}" for letter, text in choices.items())
        question = f"{row.text('Question')}\n{options}"
        return self._item(root, "ach_mcq", row, row.text("clip"), question, right, choices=choices)

    def _item(
        self, root: Path, task: str, row: Row, clip: str, question: str, truth: str, **meta: Any
    ) -> Item:
        return Item.question(
            item_id=f"{task}, {row.place}, {clip}",
            video_id=f"{FOLDERS[task]}/{clip}",
            source=_locate(root, FOLDERS[task], clip, row),
            prompt=self.ask(f"{question}\n{HINTS[task]}"),
            target=truth,
            task=task,
            references=(truth,),
            meta={"group": f"{task}, {row.place}", **meta},
        )


def _rows(task: str, path: Path, key: str, value: Any) -> Iterator[Row]:
    """The rows below a key of a file; where one is not as published, a row that says so."""
    place = f"entry {shown(key)}"
    if task == "ach_binaryqa" and isinstance(value, list):
        for number, one in enumerate(value):
            yield Row.of(path, f"{place}, question {number}", one)
    elif task == "ach_mcq" and type(value) is dict:
        for clip, one in value.items():
            yield _of_clip(Row.of(path, f"{place}, {shown(clip)}", one), clip)
    elif task == "ach_binaryqa":
        yield Row(path, place, {}, f"must be a list of questions, got {type(value).__name__}")
    else:
        yield _of_clip(Row.of(path, place, value), key)


def _of_clip(row: Row, clip: str) -> Row:
    return row if row.broken else replace(row, values={**row.values, "clip": clip})


def _locate(root: Path, folder: str, clip: str, row: Row) -> Path:
    paths = [film_at(row.below(root / place.format(folder), clip, "video")) for place in PLACES]
    return next((path for path in paths if path.is_file()), paths[0])
