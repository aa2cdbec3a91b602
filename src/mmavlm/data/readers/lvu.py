"""LVU (Towards Long-Form Video Understanding, CVPR 2021), in MA-LMM's annotation format."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.core.medium import FrameGrid
from mmavlm.core.settings import whole_at_least
from mmavlm.data.readers.annotations import listed
from mmavlm.data.readers.entries import EntryFiles, Found, SkippingReader, usable
from mmavlm.data.readers.layout import Layout
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.values import absent
from mmavlm.data.sampling import lvu_windows
from mmavlm.data.sources import locate

TASKS = ("director", "genre", "relationship", "scene", "way_speaking", "writer", "year")
LAYOUT = Layout(("duration", "num_frames"), ("subset", *TASKS))
PROMPT = "what is the {task} of the movie?"


class LVUReader(SkippingReader):
    """Windows of `history_s` seconds of `<root>/<folder>/annotation/{train,val,test}.json`.

    An entry is `{id: {duration, num_frames, <task>: label, …}}`; a film has only some tasks, and of
    its duration the whole seconds count. Films lie in `<root>/<folder>/frames/<id>/` or
    `<root>/<folder>/videos/<id>.mp4` (`source`: auto, video, frames). Prompts name the task by its
    key, as MA-LMM's do: `way_speaking`.

    Raises:
        ConfigError: if history or stride is no whole number of at least one second.
    """

    def __init__(
        self,
        folder: str = "lvu",
        history_s: int = 100,
        stride_s: int = 20,
        source: str = "auto",
        counted: bool = False,
    ) -> None:
        whole_at_least("data.reader", 1, history_s=history_s, stride_s=stride_s)
        self.files = EntryFiles(folder, counted=counted)
        self.count_key = "num_frames"
        self.history_s = history_s
        self.stride_s = stride_s
        self.source = source

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """One item a window of every film that has the task, and what was left out.

        Raises:
            ConfigError: if a task is not one of LVU's seven.
            DataError: if the annotation is missing or broken.
        """
        tasks = _checked(task)
        classes = self.classes(root, tasks)
        folder = Path(root) / self.files.folder

        def of_film(video_id: str, row: Row) -> list[Item]:
            labels = _labels(row, tasks)
            if not labels:
                return []
            duration_s = row.whole("duration", cut=True)
            grid = FrameGrid(row.whole(self.count_key), "windows")
            try:
                source = locate(folder, video_id, self.source)
            except DataError as error:
                raise row.misplaced(error) from None
            return [
                Item.question(
                    item_id=f"{video_id}/{name}/{start_s}",
                    video_id=video_id,
                    source=source,
                    prompt=PROMPT.format(task=name),
                    target=label,
                    task=name,
                    start_s=start_s,
                    end_s=end_s,
                    references=(label,),
                    label=classes[name].index(label) if label in classes[name] else None,
                    grid=grid,
                )
                for name, label in labels.items()
                for start_s, end_s in lvu_windows(duration_s, self.history_s, self.stride_s)
            ]

        return usable(self.files.entries(Path(root), split), of_film, layout=LAYOUT)

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """Task → its labels in the training split, sorted."""
        labels: dict[str, set[str]] = {name: set() for name in _checked(task)}
        for _, row in self.files.entries(Path(root), "train"):
            with suppress(DataError):  # told where the entries are read
                for name, label in _labels(row, list(labels)).items():
                    labels[name].add(label)
        return {name: sorted(found) for name, found in labels.items()}

    def film(self, key: str, row: Row) -> str:
        """The name of an entry's film: its key."""
        return key


def _labels(row: Row, tasks: Sequence[str]) -> dict[str, str]:
    """Task → label, of those of the tasks that the film has."""
    return {name: row.text(name) for name in tasks if not absent(row.values.get(name))}


def _checked(task: str | Sequence[str] | None) -> list[str]:
    tasks = listed(task)
    unknown = [name for name in tasks if name not in TASKS]
    if unknown or not tasks:
        raise ConfigError(
            f"data.task={unknown[0] if unknown else task!r} is no task of LVU; "
            f"choose one or more of {', '.join(TASKS)}"
        )
    return tasks
