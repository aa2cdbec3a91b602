"""Loggers that can show pictures and files beside numbers, each in its own way."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from mmavlm.core.files import file_sha256
from mmavlm.report import SampleAnswer
from mmavlm.report.pictures import Pixels, sample_picture, strip

ANSWER_COLUMNS = ("task", "film", "question", "answer", "truth", "right", "probability")
RIGHT = {True: "right", False: "wrong", None: ""}


class Picture(NamedTuple):
    """A picture (H,W,3), and what it is of."""

    name: str
    pixels: Pixels


@dataclass(frozen=True)
class StoredFile:
    """A file as it is now: its name among others, its path, its bytes, and their SHA-256."""

    name: str
    path: Path
    size: int
    sha256: str

    @classmethod
    def at(cls, name: str, path: Path) -> StoredFile:
        """Read a file, and tell what it is."""
        return cls(name, path.absolute(), path.stat().st_size, file_sha256(path))


class PictureLogger(Protocol):
    """A logger that can show more than numbers."""

    def pictures(self, name: str, pictures: Sequence[Picture], step: int) -> None:
        """Show pictures under a common name, beside what was logged at a step."""

    def answers(self, name: str, samples: Sequence[SampleAnswer], step: int) -> None:
        """Show items as they were answered, with their frames."""

    def data(self, name: str, files: Sequence[StoredFile]) -> None:
        """Say of which files the set of a run was read; none of them is copied."""

    def model(self, file: StoredFile, score: float | None) -> None:
        """Give the logger a checkpoint to keep, with the score that it was chosen by."""


def picture_loggers(loggers: Iterable[Logger]) -> list[PictureLogger]:
    """Those of a trainer's loggers that can show pictures."""
    kinds: dict[type[Logger], Any] = {TensorBoardLogger: OnTensorBoard, WandbLogger: OnWandb}
    return [
        shows(logger) for logger in loggers for kind, shows in kinds.items()
        if isinstance(logger, kind)
    ]  # fmt: skip


class OnTensorBoard:
    """Pictures and texts in TensorBoard's event files; of files it holds what there is to know."""

    def __init__(self, logger: TensorBoardLogger) -> None:
        self._logger = logger

    def pictures(self, name: str, pictures: Sequence[Picture], step: int) -> None:
        """Show each picture with a slider over the steps."""
        for picture in pictures:
            tag = f"{name}/{picture.name}"
            self._writer.add_image(tag, picture.pixels, step, dataformats="HWC")
        self._writer.flush()

    def answers(self, name: str, samples: Sequence[SampleAnswer], step: int) -> None:
        """Show a picture of each item, and all of them as a table of text."""
        numbered = enumerate(samples, start=1)
        self.pictures(name, [Picture(str(n), sample_picture(s)) for n, s in numbered], step)
        rows = [[str(cell) for cell in _cells(sample)] for sample in samples]
        self._text(name, _markdown(ANSWER_COLUMNS, rows), step)

    def data(self, name: str, files: Sequence[StoredFile]) -> None:
        """Write the files' names, paths, sizes and checksums as a table of text."""
        self._text("data", f"{name}\n\n{_files(files)}", 0)

    def model(self, file: StoredFile, score: float | None) -> None:
        """Write the same of the checkpoint, which is not copied."""
        told = "" if score is None else f"score: {score:.6g}\n\n"
        self._text("model", f"{told}{_files([file])}", 0)

    @property
    def _writer(self) -> Any:
        return self._logger.experiment

    def _text(self, name: str, text: str, step: int) -> None:
        self._writer.add_text(name, text, step)
        self._writer.flush()


class OnWandb:
    """Images, tables and artifacts of Weights & Biases."""

    def __init__(self, logger: WandbLogger) -> None:
        self._logger = logger

    def pictures(self, name: str, pictures: Sequence[Picture], step: int) -> None:
        """Show the pictures as images with captions."""
        if pictures:
            captions = [picture.name for picture in pictures]
            shown: list[Any] = [picture.pixels for picture in pictures]
            self._logger.log_image(name, shown, step, caption=captions)

    def answers(self, name: str, samples: Sequence[SampleAnswer], step: int) -> None:
        """Show the items as a table, a strip of frames beside each."""
        import wandb

        rows = [
            [*_cells(sample), wandb.Image(strip(sample.frames)) if sample.frames else None]
            for sample in samples
        ]
        self._logger.log_table(name, [*ANSWER_COLUMNS, "frames"], rows, step=step)

    def data(self, name: str, files: Sequence[StoredFile]) -> None:
        """Log an artifact that refers to the files and holds their checksums."""
        told = {file.name: {"bytes": file.size, "sha256": file.sha256} for file in files}
        artifact = self._artifact(f"data-{name}", "dataset", {"files": told})
        for file in files:
            artifact.add_reference(file.path.as_uri(), name=file.name)
        self._logger.experiment.log_artifact(artifact)

    def model(self, file: StoredFile, score: float | None) -> None:
        """Log an artifact that holds a copy of the checkpoint."""
        told = {"path": str(file.path), "sha256": file.sha256, "score": score}
        artifact = self._artifact(f"model-{self._logger.experiment.id}", "model", told)
        artifact.add_file(str(file.path), name=file.name)
        self._logger.experiment.log_artifact(artifact, aliases=["latest", "best"])

    def _artifact(self, name: str, kind: str, metadata: dict[str, Any]) -> Any:
        import wandb

        return wandb.Artifact(re.sub(r"[^\w.-]", "-", name), type=kind, metadata=metadata)


def _cells(sample: SampleAnswer) -> list[Any]:
    """A row of `ANSWER_COLUMNS`; without an answer there is no probability."""
    answer = sample.answers[0] if sample.answers else ""
    probability = f"{sample.probabilities[0]:.3g}" if sample.probabilities else ""
    return [
        sample.task, sample.video_id, sample.prompt, answer, sample.truth, RIGHT[sample.right],
        probability,
    ]  # fmt: skip


def _files(files: Sequence[StoredFile]) -> str:
    rows = [[file.name, str(file.path), str(file.size), file.sha256] for file in files]
    return _markdown(("file", "path", "bytes", "SHA-256"), rows)


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in which every text stands for itself."""
    lines = [columns, ["-"] * len(columns), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(cell: str) -> str:
    """A text in one line, in which nothing is a sign of Markdown or an element."""
    return re.sub(r"([\\`*_{}\[\]|])", r"\\\1", html.escape(" ".join(cell.split()), quote=False))
