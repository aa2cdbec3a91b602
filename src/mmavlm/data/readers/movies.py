"""Synthetic movies (mmavlm.movies): LVU's tasks, and in a test the films cut short."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmavlm.core.errors import ConfigError
from mmavlm.data.readers.annotations import listed
from mmavlm.data.readers.entries import Found, SkippingReader
from mmavlm.data.readers.lvu import TASKS, LVUReader
from mmavlm.data.readers.own import OwnReader
from mmavlm.movies.cuts import TASK
from mmavlm.movies.labels import RELATIONSHIP

if TYPE_CHECKING:
    from mmavlm.metrics.benchmarks import Benchmark

LIKE = "relationship"  # the task that is asked of the parts, and taught on whole films


class MovieReader(SkippingReader):
    """LVU's seven tasks as `LVUReader` reads them, and `cuts`, the test films cut short.

    `<root>/cuts/test.jsonl` asks what the relationship is in parts of films that show less than the
    whole. Nothing is taught of them: they are in the test alone, and how often an answer tells what
    the part does not show is told as `hallucination`.

    Raises:
        ConfigError: if history or stride is below one second.
    """

    def __init__(self, history_s: int = 100, stride_s: int = 20, source: str = "auto") -> None:
        self.lvu = LVUReader(history_s=history_s, stride_s=stride_s, source=source)
        self.cuts = OwnReader(folder=TASK)

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """One item a window of every film, and of the test films two parts; what was left out.

        Raises:
            ConfigError: if a task is unknown.
            DataError: if the annotation is missing or broken.
        """
        of_lvu, cut = _split(task)
        found = self.lvu.read(root, split, of_lvu) if of_lvu else Found([], {})
        if not (cut and split == "test"):
            return found
        parts = self.cuts.read(root, split, TASK)
        items = [*found.items, *parts.items]
        return Found(items, found.skipped | parts.skipped, found.notes + parts.notes)

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """Task → its labels in the training split, sorted; parts have those of whole films."""
        of_lvu, cut = _split(task)
        found = self.lvu.classes(root, of_lvu) if of_lvu else {}
        return found | ({TASK: self.lvu.classes(root, LIKE)[LIKE]} if cut else {})

    def scores(self, tasks: Sequence[str]) -> Benchmark:
        """How often a part is answered with what it does not show, if parts are asked about."""
        from mmavlm.metrics.benchmarks import cut_films

        return cut_films(tasks, TASK, tuple(RELATIONSHIP))


def _split(task: str | Sequence[str] | None) -> tuple[list[str], bool]:
    """The tasks that are LVU's, and whether parts of films are asked about."""
    tasks = listed(task)
    unknown = [name for name in tasks if name not in (*TASKS, TASK)]
    if unknown or not tasks:
        raise ConfigError(
            f"data.task={unknown[0] if unknown else task!r} is no task of the synthetic movies; "
            f"choose one or more of {', '.join((*TASKS, TASK))}"
        )
    return [name for name in tasks if name != TASK], TASK in tasks
