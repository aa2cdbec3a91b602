"""Answers that come while their evidence is seen: the in-span score of MAGQA, over a judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmavlm.metrics.duet.films import Taken
from mmavlm.metrics.duet.matching import repeats
from mmavlm.metrics.duet.watched import Event, EventTruth, Said, Watched
from mmavlm.metrics.resampling import mean

LEAST, MOST = 1.0, 5.0  # of a score; the least stands for no reply, too

SCORE, REPLIES, DISTINCT, ANSWERED, ANSWERS, UNJUDGED = range(6)  # columns


@dataclass(frozen=True)
class ToJudge:
    """A reply within the span of a true answer, and what was asked; equal ones are judged once."""

    question: str
    answer: str
    reply: str


def to_judge(watched: Sequence[Watched | None], truths: Sequence[EventTruth]) -> dict[ToJudge, str]:
    """All that a judge is to score, each with the first question's id that needs it."""
    found: dict[ToJudge, str] = {}
    for film, truth in zip(watched, truths, strict=True):
        for answer in truth.events:
            for case in _in_span(film, truth, answer):
                found.setdefault(case, truth.question_id)
    return found


def in_span_statistics(
    watched: Sequence[Watched | None],
    truths: Sequence[EventTruth],
    verdicts: Mapping[ToJudge, float | None],
) -> Tensor:
    """What n questions bring, (n,6): see the columns above.

    `verdicts` has the score of all that is `to_judge`, None if it could not be had. Scores are held
    to 1 to 5, so that those of a judge who begins at 0 fit.
    """
    rows = []
    for film, truth in zip(watched, truths, strict=True):
        texts = [reply.text for reply in film.replies] if film else []
        cases = [list(_in_span(film, truth, answer)) for answer in truth.events]
        scores = [
            sum(_held(verdicts[case]) for case in of_answer) / len(of_answer)
            if of_answer
            else LEAST
            for of_answer in cases
        ]
        unjudged = sum(verdicts[case] is None for of_answer in cases for case in of_answer)
        rows.append([
            sum(scores) / len(scores), len(texts), len(texts) - repeats(texts),
            sum(map(bool, cases)), len(cases), unjudged,
        ])  # fmt: skip
    return torch.tensor(rows, dtype=torch.float64)


def in_span_scores(taken: Taken) -> dict[str, float]:
    """The mean score, 1 to 5, of what was said while the evidence of a true answer was seen.

    A true answer's score is the mean over the replies with s ≤ t ≤ e, 1 without any; a question's
    is the mean over its answers, and `in_span_score` that over questions (arXiv 2411.17991, for
    MAGQA). A verdict that could not be had scores 1, as there, and is counted: `unjudged`.
    `answered_in_span` is the share of true answers with a reply in their span; `replies` and
    `distinct_replies` are how many there are a question, equal texts counting once in the second.
    All but counts have 95 % bootstrap intervals over films (`_low`, `_high`). A question that was
    not watched scores 1.
    """
    return {
        **taken.mean("in_span_score", SCORE),
        **taken.score("answered_in_span", mean, (ANSWERED, ANSWERS)),
        **taken.mean("replies", REPLIES),
        **taken.mean("distinct_replies", DISTINCT),
        "unjudged": float(taken.statistics[:, UNJUDGED].sum()),
        **taken.counts,
    }


def _held(score: float | None) -> float:
    return LEAST if score is None else min(max(score, LEAST), MOST)


def _in_span(film: Watched | None, truth: EventTruth, answer: Event) -> Iterator[ToJudge]:
    for reply in film.replies if film else ():
        if answer.start_s <= reply.time_s <= answer.end_s:
            yield ToJudge(_asked(truth.queries, reply.time_s), answer.text, reply.text)


def _asked(queries: Sequence[Said], time_s: float) -> str:
    """What was last asked before a time."""
    return next((query.text for query in reversed(queries) if query.time_s <= time_s), "")
