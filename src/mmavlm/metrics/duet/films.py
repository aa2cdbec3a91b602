"""Questions about watched films beside their truth, and what they bring to scores over films."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from mmavlm.core.errors import DataError
from mmavlm.core.hashing import string_keys
from mmavlm.metrics.duet.watched import EventTruth, HighlightTruth, Watched
from mmavlm.metrics.intervals import bootstrap_interval
from mmavlm.metrics.resampling import Score, group_sums, mean, with_count
from mmavlm.metrics.rows import first_of_each

AnyTruth = TypeVar("AnyTruth", EventTruth, HighlightTruth)
NAMED = 10  # so many questions are named, the others counted
ITEM, VIDEO, MISSING, STATISTICS = range(4)  # columns of a row; statistics are the last ones


@dataclass(frozen=True)
class Paired(Generic[AnyTruth]):
    """The truth of all questions, each with what was watched, None where that is `missing`.

    `unasked` are questions that were watched and have no truth. `eventless` are questions left out
    because there is nothing to be found (`with_events`).
    """

    watched: tuple[Watched | None, ...]
    truths: tuple[AnyTruth, ...]
    unasked: tuple[str, ...]
    eventless: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """The questions of which nothing was watched; they count as wrong."""
        both = zip(self.watched, self.truths, strict=True)
        return [truth.question_id for film, truth in both if film is None]

    def remarks(self) -> Iterator[str]:
        """Sentences that name the questions which do not count as the others do."""
        for questions, said in (
            (self.missing, "questions that were not watched, and count as wrong"),
            (self.unasked, "questions that the truth does not have, and are left out"),
            (self.eventless, "questions to which nothing is to be found, and are left out"),
        ):
            if questions:
                more = " …" if len(questions) > NAMED else ""
                yield f"{said} ({len(questions)}): {', '.join(questions[:NAMED])}{more}"

    def taken(self, statistics: Tensor) -> Taken:
        """What all questions bring, (n,S), to scores over films."""
        return Taken.of(self.watched, self.truths, statistics)


def paired(watched: Sequence[Watched], truths: Sequence[AnyTruth]) -> Paired[AnyTruth]:
    """Each question's truth with what was watched of it.

    Raises:
        DataError: if they have no question in common.
    """
    by_id = {film.question_id: film for film in watched}
    found = tuple(by_id.get(truth.question_id) for truth in truths)
    if not any(found):
        of = [rows[0].question_id if rows else "none" for rows in (watched, truths)]
        raise DataError(
            f"predictions and truth have no question in common, such as {of[0]!r} and {of[1]!r}; "
            "give the files of one and the same split"
        )
    known = {truth.question_id for truth in truths}
    return Paired(found, tuple(truths), tuple(name for name in by_id if name not in known))


def with_events(pairs: Paired[EventTruth]) -> Paired[EventTruth]:
    """The questions to which there is something to be found: where it is can be asked of no other.

    Raises:
        DataError: if there is none.
    """
    both = zip(pairs.watched, pairs.truths, strict=True)
    kept = [(film, truth) for film, truth in both if truth.events]
    if not kept:
        raise DataError(
            f"none of {len(pairs.truths)} questions has an event to be found, such as "
            f"{pairs.truths[0].question_id!r}; of such questions only speaking can be scored"
        )
    watched, truths = zip(*kept, strict=True)
    silent = tuple(truth.question_id for truth in pairs.truths if not truth.events)
    return Paired(watched, truths, pairs.unasked, silent)


def scores_of(film: Watched, head: str) -> Tensor:
    """The scores (T) of a head, float64.

    Raises:
        DataError: naming the question and the heads it has, if it is none of them.
    """
    if head not in film.scores:
        raise DataError(
            f"question {film.question_id!r} has no scores of the head {head!r}, but of "
            f"{', '.join(film.scores) or 'none'}; watch the film with that head"
        )
    return torch.tensor(film.scores[head], dtype=torch.float64)


def rows_of(
    watched: Sequence[Watched | None],
    truths: Sequence[EventTruth] | Sequence[HighlightTruth],
    statistics: Tensor,
) -> Tensor:
    """What n questions bring, (n,S) float64, as rows of integers; None was not watched."""
    keys = [
        string_keys(truth.question_id for truth in truths),
        string_keys(truth.video_id for truth in truths),
        torch.tensor([film is None for film in watched], dtype=torch.int64),
    ]
    bits = statistics.double().contiguous().view(torch.int64)
    return torch.cat([torch.stack(keys, dim=1), bits], dim=1)


@dataclass(frozen=True)
class Taken:
    """Statistics (n,S) of n questions, the films (n) they are about, how many were not watched."""

    statistics: Tensor
    films: Tensor
    missing: int

    @classmethod
    def of(
        cls,
        watched: Sequence[Watched | None],
        truths: Sequence[EventTruth] | Sequence[HighlightTruth],
        statistics: Tensor,
    ) -> Taken:
        """What n questions bring, (n,S)."""
        return cls.of_rows(rows_of(watched, truths, statistics))

    @classmethod
    def of_rows(cls, rows: Tensor) -> Taken:
        """What `rows_of` made rows of; a question seen twice counts once."""
        rows = rows[first_of_each(rows[:, ITEM])]
        statistics = rows[:, STATISTICS:].contiguous().view(torch.float64)
        return cls(statistics, rows[:, VIDEO], int(rows[:, MISSING].sum()))

    @property
    def counts(self) -> dict[str, float]:
        """How many questions there are, and how many of them were not watched."""
        return {"count": float(len(self.films)), "missing": float(self.missing)}

    def score(self, name: str, score: Score, columns: Sequence[int]) -> dict[str, float]:
        """A function of sums of some columns, as `name`, with the bounds of its interval."""
        chosen = self.statistics[:, list(columns)]
        low, high = bootstrap_interval(group_sums(chosen, self.films), score)
        return {name: float(score(chosen.sum(dim=0))), f"{name}_low": low, f"{name}_high": high}

    def mean(self, name: str, column: int) -> dict[str, float]:
        """The mean of a column over questions, with its interval; nan counts for nothing."""
        values = self.statistics[:, column]
        there = ~values.isnan()
        units = torch.where(there[:, None], with_count(values), 0.0)
        low, high = bootstrap_interval(group_sums(units, self.films), mean)
        return {name: float(mean(units.sum(dim=0))), f"{name}_low": low, f"{name}_high": high}
