"""A film as a contact sheet: its frames in order with what is said, and questions about it.

Frames that show the answer to a question carry its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmavlm.report.drawing import data_uri
from mmavlm.report.films import FilmsOfPage, PlayedFilm


@dataclass(frozen=True)
class SheetFrame:
    """A frame, uint8 (H,W,3), when it is shown, and what is said meanwhile."""

    picture: NDArray[np.uint8]
    at_s: float
    line: str = ""


@dataclass(frozen=True)
class SheetQuestion:
    """A question, the answer given and the true one; `evidence` are numbers of frames, from 0.

    `part_s` bounds the stretch of the film that is asked about, None where that is all of it.
    `right` None stands for an answer without right and wrong.
    """

    task: str
    prompt: str
    answer: str
    truth: str
    right: bool | None
    evidence: Sequence[int] = ()
    part_s: tuple[float, float] | None = None


@dataclass(frozen=True)
class ContactSheet:
    """One film: frames in the order of time, and questions about it; `played` where it is to play.

    Raises:
        ValueError: if a question's evidence is not among the frames.
    """

    film: str
    frames: Sequence[SheetFrame]
    questions: Sequence[SheetQuestion]
    played: PlayedFilm | None = None

    def __post_init__(self) -> None:
        for question in self.questions:
            if not {*question.evidence} <= {*range(len(self.frames))}:
                raise ValueError(
                    f"ContactSheet {self.film!r}: evidence {list(question.evidence)} must be "
                    f"numbers of the {len(self.frames)} frames"
                )


def lay_out(sheet: ContactSheet, films: FilmsOfPage) -> dict[str, Any]:
    """What the page's template is given: frames as pictures within the page, and their marks."""
    marks: list[list[tuple[int, bool | None]]] = [[] for _ in sheet.frames]
    for number, question in enumerate(sheet.questions, start=1):
        for frame in sorted({*question.evidence}):
            marks[frame].append((number, question.right))
    frames = [
        (data_uri(frame.picture), frame.at_s, frame.line, of_frame)
        for frame, of_frame in zip(sheet.frames, marks, strict=True)
    ]
    parts = [
        "" if q.part_s is None else f"{q.part_s[0]:.1f} to {q.part_s[1]:.1f} s"
        for q in sheet.questions
    ]
    questions = list(zip(sheet.questions, parts, strict=True))
    played = films.lay_out(sheet.played)
    return {"film": sheet.film, "played": played, "frames": frames, "questions": questions}
