"""Answers judged by a text generator: two models against each other, or one by itself.

MovieLLM judges each pair once, always in one order, and an error discards what was paid for; here
the order is swapped, disagreement is a tie, and a verdict that cannot be had is a value of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from mmavlm.movies.generators.text import TextGenerator, TextRequest, UnusableAnswerError, ask
from mmavlm.movies.verdicts import (
    Answered,
    AnsweredTwice,
    Aspect,
    Case,
    PairVerdict,
    ScoreVerdict,
    form_of,
)

Form = TypeVar("Form", bound=BaseModel)
Progress = Callable[[int, int], None]
VOTES = {"first": 1, "tie": 0, "second": -1}


@dataclass(frozen=True)
class Failed:
    """A verdict that could not be had, and why."""

    error: str


@dataclass(frozen=True)
class Outcome:
    """A pair judged in both orders: ours won (1), tied (0), lost (-1); mean scores, 0 to 5."""

    sign: int
    ours: float
    other: float


def judge_pairs(
    judge: TextGenerator,
    cases: Sequence[Case],
    *,
    keep: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Outcome | Failed]:
    """Compare ours with the other answer of every case, in both orders; won is what wins in both.

    See `collect`.
    """
    requests = [request for case in cases for request in case.requests()]
    found = collect(judge, requests, PairVerdict, keep=keep, workers=workers, progress=progress)
    return [_outcome(there, back) for there, back in zip(found[::2], found[1::2], strict=True)]


def judge_answers(
    judge: TextGenerator,
    answers: Sequence[Answered] | Sequence[AnsweredTwice],
    aspect: Aspect = "short",
    *,
    keep: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[ScoreVerdict | Failed]:
    """A verdict on one aspect of each answer; on consistency, of each two. See `collect`.

    Verdicts on `short` are `ShortVerdict`s.
    """
    requests = [
        one.request() if isinstance(one, AnsweredTwice) else one.request(aspect) for one in answers
    ]
    form = form_of(aspect)
    return collect(judge, requests, form, keep=keep, workers=workers, progress=progress)


def collect(
    judge: TextGenerator,
    requests: Sequence[TextRequest],
    form: type[Form],
    *,
    keep: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Form | Failed]:
    """The verdict on each request, in their order; equal requests are made once.

    Verdicts are kept in the folder `keep` as they come, so that a run that was stopped asks for
    none twice. A judge without a usable verdict gives `Failed`, which is not kept. `workers`
    requests are under way at once; `progress` is called with (done, in all).

    Raises:
        DataError: if the judge cannot be reached, or a kept verdict is broken.
    """
    unique = {request.digest: request for request in requests}
    found: dict[str, Form | Failed] = {}

    def verdict(request: TextRequest) -> Form | Failed:
        try:
            return ask(judge, request, form, keep=keep)
        except UnusableAnswerError as error:
            return Failed(str(error))

    with ThreadPoolExecutor(max(1, workers)) as pool:
        asked = {pool.submit(verdict, request): digest for digest, request in unique.items()}
        try:
            for future in as_completed(asked):
                found[asked[future]] = future.result()
                if progress is not None:
                    progress(len(found), len(unique))
        except BaseException:  # nothing more is paid for; what is under way is still kept
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [found[request.digest] for request in requests]


def _outcome(there: PairVerdict | Failed, back: PairVerdict | Failed) -> Outcome | Failed:
    if isinstance(there, Failed):
        return there
    if isinstance(back, Failed):
        return back
    # A judge that prefers a place rather than an answer contradicts itself: a tie.
    agreed = VOTES[there.better] == -VOTES[back.better]
    return Outcome(
        VOTES[there.better] if agreed else 0,
        (there.first + back.second) / 2,
        (there.second + back.first) / 2,
    )
