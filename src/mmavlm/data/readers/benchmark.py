"""What the readers of hallucination benchmarks share: a test split, parts, entries left out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.data.readers.annotations import listed
from mmavlm.data.readers.entries import Found, SkippingReader, usable
from mmavlm.data.readers.rows import Row
from mmavlm.metrics import parse_yes_no
from mmavlm.metrics.parsing import UNPARSED, YES

if TYPE_CHECKING:
    from mmavlm.metrics.benchmarks import Benchmark

QUESTION = "{question}"  # where a prompt takes the question


class BenchmarkReader(SkippingReader):
    """Questions of a benchmark, which has a test split alone; its parts are the tasks.

    `folder` lies below the data root, `prompt` holds `{question}`, `parsing` says how answers are
    read (see `metrics.parse_yes_no`). Entries that cannot be used are left out and told.

    Raises:
        ConfigError: if the prompt has no place for the question, or the parsing is unknown.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]] = ()  # those there may be; empty where the file says

    def __init__(self, folder: str = ".", prompt: str = QUESTION, parsing: str = "strict") -> None:
        if QUESTION not in prompt:
            raise ConfigError(f"data.reader.prompt={prompt!r} has no {QUESTION} to fill in")
        parse_yes_no("", parsing)
        self.folder = folder
        self.prompt = prompt
        self.parsing = parsing

    @abstractmethod
    def scores(self, tasks: Sequence[str]) -> Benchmark:
        """The benchmark's metrics for the parts that occur."""

    @abstractmethod
    def entries(self, root: Path, tasks: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """The rows of the wanted parts (all where there are none named), each with its part."""

    @abstractmethod
    def items(self, root: Path, task: str, row: Row) -> list[Item]:
        """The questions of a row.

        Raises:
            DataError: naming file, entry and key of what cannot be used.
        """

    def ask(self, question: str) -> str:
        """A question as it is put to the model."""
        return self.prompt.replace(QUESTION, question)

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """The questions of the given parts, and entry → reason of what was left out."""
        if split != "test":
            raise DataError(
                f"{self.name} is a benchmark: it has a test split alone, and {split} was asked "
                "for; run it with mmavlm.evaluate, or beside training with callbacks=hallucination"
            )
        tasks = listed(task)
        if self.parts and (unknown := sorted(set(tasks) - set(self.parts))):
            raise ConfigError(
                f"data.task={unknown} is no part of {self.name}; choose of {', '.join(self.parts)}"
            )
        root = Path(root) / self.folder
        return usable(
            self.entries(root, tasks),
            lambda part, row: self.items(root, part, row),
            lambda part, row: f"{row.path.name}, {row.place}",
        )


class FilmsInFolder(BenchmarkReader):
    """A benchmark whose films lie in a folder of any name, `videos`, below its own."""

    def __init__(
        self,
        folder: str = ".",
        prompt: str = QUESTION,
        parsing: str = "strict",
        videos: str = "videos",
    ) -> None:
        super().__init__(folder, prompt, parsing)
        self.videos = videos


def yes_or_no(row: Row, key: str) -> str:
    """The truth under a key: "yes" or "no", whatever its case, with or without a full stop.

    Raises:
        DataError: naming file, row, key and what came.
    """
    text = row.text(key)
    if len(text.split()) != 1 or (said := parse_yes_no(text)) == UNPARSED:
        raise row.error(f"{key!r} must be yes or no, got {text!r}")
    return "yes" if said == YES else "no"


def right_letter(row: Row, key: str, choices: Mapping[str, str]) -> str:
    """The truth under a key: one letter of `choices` (letter → text).

    Raises:
        DataError: naming file, row, key and what came.
    """
    letter = row.text(key).strip().rstrip(".")
    if letter not in choices:
        raise row.error(f"{key!r} must be one letter of {list(choices)}, got {letter!r}")
    return letter
