"""One's own videos with prompts and answers: a jsonl or csv a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from typing_extensions import Unpack

from mmavlm.data.readers.annotations import SplitFiles, SplitNames, distinct, listed
from mmavlm.data.readers.rows import Row
from mmavlm.errors import DataError
from mmavlm.interfaces import VideoItem
from mmavlm.options import Style, check_style

OPEN = "open"  # the task of rows that name none


class OwnReader:
    """Rows `{"video", "prompt", "answer"}` of `<root>/<folder>/{train,val,test}.jsonl` (or .csv).

    `video` is a path below the root, to a file or a folder of frames. May be given: `id`,
    `start_s`, `end_s`, `task`, `references` (other right answers; in a csv, with | in between),
    `options` (what there is to choose from, likewise; the answer is the text, letter or number of
    one). See `SplitFiles` for other names of the files, and for one file with a `split` column.
    `closed` lists the tasks whose answers are classes, to be ranked; `options` says whether options
    are answered by letters, numbers or texts.

    Raises:
        ConfigError: if there is no such way to answer options.
    """

    def __init__(
        self,
        folder: str = ".",
        closed: str | Sequence[str] = (),
        options: Style = "letters",
        **named: Unpack[SplitNames],
    ) -> None:
        self.files = SplitFiles(folder, **named)
        self.closed = tuple(listed(closed))
        self.style = check_style(options, "data.reader.options")

    def __call__(self, root: Path, split: str, task: str | Sequence[str] | None) -> list[VideoItem]:
        """One item a row of the split, of the given task or tasks if any.

        Raises:
            DataError: naming file, row and key of what cannot be used, or the tasks that there
                are if none of them is asked for.
        """
        root = Path(root)
        tasks = listed(task)
        classes = self.classes(root, task)
        rows = [(_task(row), row) for row in self.files.rows(root, split)]
        items = [
            self._item(root, row, of_task, classes.get(of_task, []))
            for of_task, row in rows
            if of_task in tasks or not tasks
        ]
        path = self.files.path(root, split)
        if rows and not items:
            there = ", ".join(sorted({of_task for of_task, _ in rows}))
            raise DataError(f"{path} has no rows of data.task={tasks}; its tasks are {there}")
        return distinct(items, path)

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """Closed task → its answers in the training split, sorted."""
        tasks = listed(task or self.closed)
        labels: dict[str, set[str]] = {name: set() for name in self.closed if name in tasks}
        if labels:
            for row in self.files.rows(Path(root), "train"):
                if (name := _task(row)) in labels:
                    labels[name].add(str(row.need("answer")))
        return {name: sorted(found) for name, found in labels.items()}

    def _item(self, root: Path, row: Row, task: str, classes: list[str]) -> VideoItem:
        video, answer, prompt = (str(row.need(key)) for key in ("video", "answer", "prompt"))
        start_s, end_s = row.stretch_s()
        chosen = row.options("options", self.style, answer)
        if chosen is not None:
            prompt, answer = chosen[0].ask(prompt), chosen[0].answers[chosen[1]]
        return VideoItem(
            item_id=row.name("id", f"{video}, {row.place}"),
            video_id=video,
            source=row.below(root, video),
            prompt=prompt,
            target=answer,
            task=task,
            start_s=start_s,
            end_s=end_s,
            references=(answer, *_references(row)),
            label=classes.index(answer) if answer in classes else None,
            options=None if chosen is None else chosen[0],
        )


def _task(row: Row) -> str:
    return row.name("task", OPEN)


def _references(row: Row) -> list[str]:
    references = row.values.get("references") or ()
    if isinstance(references, str):
        references = [text for text in references.split("|") if text]
    if not isinstance(references, list | tuple):
        raise row.error(f"'references' must be a list of texts, got {references!r}")
    return [str(text) for text in references]
