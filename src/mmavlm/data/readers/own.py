"""One's own videos with prompts and answers: a jsonl or csv a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmavlm.data.readers.annotations import Row, read_rows
from mmavlm.data.sources import inside
from mmavlm.errors import ConfigError, DataError
from mmavlm.interfaces import VideoItem

OPEN = "open"  # the task of rows that name none


class OwnReader:
    """Rows `{"video", "prompt", "answer"}` of `<root>/{train,val,test}.jsonl` (or .csv).

    `video` is a path below the root, to a file or a folder of frames. May be given: `id`,
    `start_s`, `end_s`, `task`, `references` (other right answers), and `split`, with which one file
    may serve all splits. `train`, `val` and `test` name the files; `closed` lists the tasks whose
    answers are classes, to be ranked.
    """

    def __init__(
        self,
        train: str = "train.jsonl",
        val: str = "val.jsonl",
        test: str = "test.jsonl",
        closed: Sequence[str] = (),
    ) -> None:
        self.files = {"train": train, "val": val, "test": test}
        self.closed = tuple(closed)

    def __call__(self, root: Path, split: str, task: str | Sequence[str] | None) -> list[VideoItem]:
        """One item a row of the split, of the given task or tasks if any.

        Raises:
            DataError: naming file, row and key of what cannot be used.
        """
        tasks = [task] if isinstance(task, str) else list(task or ())
        classes = self.classes(root, task)
        items: list[VideoItem] = []
        for row in self._rows(Path(root), split):
            of_task = str(row.values.get("task") or OPEN)
            if not tasks or of_task in tasks:
                items.append(_item(Path(root), row, of_task, classes.get(of_task, [])))
        seen: dict[str, int] = {}
        for item in items:
            seen[item.item_id] = seen.get(item.item_id, 0) + 1
        if twice := [name for name, count in seen.items() if count > 1]:
            raise DataError(
                f"{Path(root) / self.files[split]}: id {twice[0]!r} occurs {seen[twice[0]]} times; "
                "give each row an id of its own"
            )
        return items

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """Closed task → its answers in the training split, sorted."""
        labels: dict[str, set[str]] = {name: set() for name in self.closed}
        if labels:
            for row in self._rows(Path(root), "train"):
                if (name := str(row.values.get("task") or OPEN)) in labels:
                    labels[name].add(str(row.need("answer")))
        return {name: sorted(found) for name, found in labels.items()}

    def _rows(self, root: Path, split: str) -> list[Row]:
        rows = read_rows(root / self.files[split])
        return [row for row in rows if row.values.get("split", split) == split]


def no_task(name: str, task: Any) -> None:
    """Refuse a task where the set has none.

    Raises:
        ConfigError: naming the task.
    """
    if task is not None:
        raise ConfigError(f"data.task={task!r}: {name} has no tasks; leave data.task out")


def _item(root: Path, row: Row, task: str, classes: list[str]) -> VideoItem:
    video, answer = str(row.need("video")), str(row.need("answer"))
    references = row.values.get("references") or ()
    if isinstance(references, str):
        references = [text for text in references.split("|") if text]
    return VideoItem(
        item_id=str(row.values.get("id") or f"{video}#{row.place}"),
        video_id=video,
        source=inside(root, video),
        prompt=str(row.need("prompt")),
        target=answer,
        task=task,
        start_s=row.number("start_s", 0.0) or 0.0,
        end_s=row.number("end_s", None),
        references=(answer, *map(str, references)),
        label=classes.index(answer) if answer in classes else None,
    )
