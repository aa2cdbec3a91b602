"""What a report shows, as plain values: the page is laid out from these alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mmavlm.metrics import Prediction, Rule, is_right
from mmavlm.metrics.headline import Score
from mmavlm.model.explain import Explanation
from mmavlm.report.contact_sheet import ContactSheet
from mmavlm.report.films import PlayedFilm


@dataclass(frozen=True)
class Curve:
    """A metric over optimizer steps; curves of one `name` share axes, one line a `split`.

    Curves of one `group`, such as a stage, stand together. `low` and `high` bound an interval
    around each value, or are empty.

    Raises:
        ValueError: if the lists differ in length.
    """

    name: str
    steps: Sequence[int]
    values: Sequence[float]
    split: str = ""
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    group: str = ""

    def __post_init__(self) -> None:
        lengths = [len(self.steps), len(self.values), len(self.low), len(self.high)]
        if (
            lengths[0] != lengths[1]
            or lengths[2] != lengths[3]
            or lengths[2] not in (0, lengths[0])
        ):
            raise ValueError(
                f"Curve {self.name!r}: steps, values, low, high must be equally long (low and high "
                f"may be empty), got {lengths}"
            )


@dataclass(frozen=True)
class Confusion:
    """Counts (C,C+1): true class in rows, answered class in columns, other answers in the last.

    `left_out` items are truly none of the classes and have no row.

    Raises:
        ValueError: if the counts do not have that shape.
    """

    title: str
    classes: Sequence[str]
    counts: Tensor | NDArray[np.int64]
    left_out: int = 0

    def __post_init__(self) -> None:
        expected = (len(self.classes), len(self.classes) + 1)
        if tuple(self.counts.shape) != expected:
            raise ValueError(
                f"Confusion {self.title!r}: counts must be (C,C+1)={expected}, "
                f"got {tuple(self.counts.shape)}"
            )


@dataclass(frozen=True)
class SampleAnswer:
    """One item as it was answered: answers best first, their probabilities, the truth.

    `frames` are uint8 (H,W,3) in time order, or empty; `compare` says what of the best answer must
    be the truth or one of `references` (see `metrics.Rule`). `film` is there where it is to play.

    Raises:
        ValueError: if answers and probabilities differ in number, or a frame is not such an image.
    """

    task: str
    video_id: str
    prompt: str
    answers: Sequence[str]
    probabilities: Sequence[float]
    truth: str
    frames: Sequence[NDArray[np.uint8]] = ()
    references: Sequence[str] = ()
    compare: Rule = "whole"
    film: PlayedFilm | None = None

    def __post_init__(self) -> None:
        if len(self.answers) != len(self.probabilities):
            raise ValueError(
                f"SampleAnswer {self.video_id!r}: got {len(self.answers)} answers but "
                f"{len(self.probabilities)} probabilities"
            )
        for frame in self.frames:
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
                raise ValueError(
                    f"SampleAnswer {self.video_id!r}: frames must be uint8 (H,W,3), "
                    f"got {frame.dtype} {frame.shape}"
                )

    @classmethod
    def of(
        cls,
        row: Prediction,
        frames: Sequence[NDArray[np.uint8]],
        film: PlayedFilm | None = None,
    ) -> SampleAnswer:
        """What was predicted of an item, beside some of its frames."""
        answers = row.answers or row.ranking
        return cls(
            task=row.task,
            video_id=row.video_id,
            prompt=row.prompt,
            answers=[answer.text for answer in answers],
            probabilities=[math.exp(answer.log_prob) for answer in answers],
            truth=row.truth,
            frames=frames,
            references=row.references,
            compare=row.compare,
            film=film,
        )

    @property
    def right(self) -> bool | None:
        """Whether the best answer is right, None where that cannot be said (see `is_right`)."""
        return is_right(self.answers, self.truth, self.references, self.compare)


@dataclass(frozen=True)
class Similarity:
    """Level → cosines (N,N) of N films, in rows, and the N texts of them, in columns.

    `same` (N,N) is True where a text is the film's own, or has the same words.

    Raises:
        ValueError: if a matrix has not a row a film and a column a text.
    """

    films: Sequence[str]
    texts: Sequence[str]
    levels: Mapping[str, NDArray[np.float32]]
    same: NDArray[np.bool_]

    def __post_init__(self) -> None:
        expected = len(self.films), len(self.texts)
        for name, matrix in {**self.levels, "same": self.same}.items():
            if matrix.shape != expected:
                raise ValueError(
                    f"Similarity: {name} must have a row a film and a column a text, {expected}, "
                    f"got {matrix.shape}"
                )


@dataclass(frozen=True)
class Table:
    """A titled table of texts, with a `note` below its title.

    `links` are addresses below the page's folder that the rows' first cells lead to, or empty. The
    `main` ones are open and stand before all else.

    Raises:
        ValueError: if a row has not one cell a column, or not each row a link.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    links: Sequence[str] = ()
    main: bool = False

    def __post_init__(self) -> None:
        if self.links and len(self.links) != len(self.rows):
            raise ValueError(
                f"Table {self.title!r}: {len(self.rows)} rows have {len(self.links)} links"
            )
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Table {self.title!r}: a row must have {len(self.columns)} cells, "
                    f"got {list(row)}"
                )


MomentKind = Literal["asked", "said", "taken back", "true"]


@dataclass(frozen=True)
class Moment:
    """What was said or is true from `start_s` to `end_s` of a film; `kind` says which it is."""

    kind: MomentKind
    start_s: float
    end_s: float
    text: str = ""


@dataclass(frozen=True)
class Timeline:
    """A film as it was watched: head → a score at each of `times_s`, and what was said meanwhile.

    `frames` are some of it, uint8 (N,H,W,3), at `frames_s`, or none. `rule` says in words when the
    model speaks; `threshold` is that of scores, None where it is of something else.

    Raises:
        ValueError: if a head has not one score a frame.
    """

    title: str
    times_s: Sequence[float]
    scores: Mapping[str, Sequence[float]]
    moments: Sequence[Moment] = ()
    rule: str = ""
    threshold: float | None = None
    frames: NDArray[np.uint8] | None = None
    frames_s: Sequence[float] = ()

    def __post_init__(self) -> None:
        for head, scores in self.scores.items():
            if len(scores) != len(self.times_s):
                raise ValueError(
                    f"Timeline {self.title!r}: {len(self.times_s)} frames, but {head} has "
                    f"{len(scores)} scores"
                )


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole report: what a test gave (`scores`, the first of each task first), and all the rest.

    `facts` are what there is to know of the run (when, which command), name → text. `lead` are the
    first sentences, where those are not about `scores`. `drawings` are title → svg element.
    """

    title: str
    lead: Sequence[str] = ()
    scores: Sequence[Score] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    drawings: Mapping[str, str] = field(default_factory=dict)
    curves: Sequence[Curve] = ()
    confusions: Sequence[Confusion] = ()
    sheets: Sequence[ContactSheet] = ()
    samples: Sequence[SampleAnswer] = ()
    explanations: Sequence[Explanation] = ()
    timelines: Sequence[Timeline] = ()
    tables: Sequence[Table] = ()
    config_yaml: str = ""
