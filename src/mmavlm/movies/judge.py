"""Answers judged by a text generator: two against each other, in both orders, or one by itself.

MovieLLM judges each pair once, always in one order, and divides by numbers of its own set; here the
order is swapped, disagreement is a tie, and shares are of what was judged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.movies.generators.text import TextGenerator, TextRequest, TextResult, ask
from mmavlm.movies.vocabulary import Words

PAIR = (
    "Two answers to a question about a film are compared with the reference. Weigh detail, the "
    "relations of the people, and the end; mark repetition down, and look at the order of what is "
    "listed. Say which is better (first, second, or tie) and score each from 0 to 5."
)
SHORT = (
    "An answer to a question about a film is compared with the reference. Say whether it is "
    "correct, meaning the same in other words is, and score it from 0 to 5."
)


class PairVerdict(Words):
    """Which of two answers is better, and a score of each, 0 to 5."""

    better: Literal["first", "second", "tie"]
    first: float = Field(ge=0, le=5)
    second: float = Field(ge=0, le=5)


class ShortVerdict(Words):
    """Whether an answer is right, and its score, 0 to 5."""

    correct: bool
    score: float = Field(ge=0, le=5)


@dataclass(frozen=True)
class Case:
    """A question, its true answer, and one or two answers to be judged."""

    question: str
    reference: str
    ours: str
    other: str = ""


@dataclass(frozen=True)
class Share:
    """A mean with its 95 % bootstrap interval over cases."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairResult:
    """Shares of cases won, tied and lost, and mean scores of both sides, 0 to 5."""

    count: int
    won: Share
    tied: Share
    lost: Share
    ours: Share
    other: Share


class OverlapJudge:
    """The judge without a model: the F1 of words. Its numbers compare with no published ones."""

    fingerprint = "overlap 1, not comparable with an LLM's verdicts"

    def complete(self, request: TextRequest) -> TextResult:
        """The verdict as JSON; equal F1 is a tie, and F1 of at least a half is correct.

        Raises:
            ConfigError: if something else than a verdict is asked for.
        """
        told = request.context
        if request.task == "judge_pair":
            first, second = (_f1(told[key], told["reference"]) for key in ("first", "second"))
            better = "tie" if first == second else "first" if first > second else "second"
            verdict = PairVerdict.model_validate(
                {"better": better, "first": 5 * first, "second": 5 * second}
            )
            return TextResult(verdict.model_dump_json())
        if request.task == "judge_short":
            f1 = _f1(told["answer"], told["reference"])
            return TextResult(ShortVerdict(correct=f1 >= 0.5, score=5 * f1).model_dump_json())
        raise ConfigError(f"the overlap judge gives verdicts, it does not write {request.task}")


def judge_pairs(
    judge: TextGenerator, cases: Sequence[Case], *, seed: int = 0, keep: Path | None = None
) -> PairResult:
    """Compare `ours` with `other` in every case, in both orders; won is what wins in both.

    Verdicts are kept in the folder `keep`, so that none is paid for twice.

    Raises:
        DataError: if there are no cases, or a verdict cannot be read.
    """
    if not cases:
        raise DataError("there are no answers to be judged")
    won, ours, other = [], [], []
    for case in cases:
        there = _pair(judge, case, case.ours, case.other, keep)
        back = _pair(judge, case, case.other, case.ours, keep)
        votes = {"first": 1, "tie": 0, "second": -1}
        # A judge that prefers a place rather than an answer contradicts itself: a tie.
        agreed = votes[there.better] == -votes[back.better]
        won.append(votes[there.better] if agreed else 0)
        ours.append((there.first + back.second) / 2)
        other.append((there.second + back.first) / 2)
    sides = np.array(won)
    columns = [sides > 0, sides == 0, sides < 0, np.array(ours), np.array(other)]
    return PairResult(len(cases), *(_share(column, seed) for column in columns))


def judge_short(
    judge: TextGenerator, cases: Sequence[Case], *, seed: int = 0, keep: Path | None = None
) -> tuple[Share, Share]:
    """Accuracy and mean score (0 to 5) of `ours`, each with its interval.

    Raises:
        DataError: if there are no cases, or a verdict cannot be read.
    """
    if not cases:
        raise DataError("there are no answers to be judged")
    verdicts = []
    for case in cases:
        told = {"question": case.question, "reference": case.reference, "answer": case.ours}
        request = TextRequest(
            "judge_short", SHORT, told, ShortVerdict.model_json_schema(), 0, max_tokens=256
        )
        verdicts.append(ask(judge, request, ShortVerdict, keep=keep))
    correct = np.array([verdict.correct for verdict in verdicts])
    return _share(correct, seed), _share(np.array([v.score for v in verdicts]), seed)


def _pair(
    judge: TextGenerator, case: Case, first: str, second: str, keep: Path | None
) -> PairVerdict:
    told = {
        "question": case.question,
        "reference": case.reference,
        "first": first,
        "second": second,
    }
    request = TextRequest(
        "judge_pair", PAIR, told, PairVerdict.model_json_schema(), 0, max_tokens=256
    )
    return ask(judge, request, PairVerdict, keep=keep)


def _share(values: np.ndarray, seed: int, draws: int = 2000) -> Share:
    """The mean and the 2.5 and 97.5 percentiles of the means of resampled cases."""
    numbers = values.astype(float)
    rng = np.random.default_rng(seed)
    means = numbers[rng.integers(len(numbers), size=(draws, len(numbers)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Share(float(numbers.mean()), float(low), float(high))


def _f1(answer: str, reference: str) -> float:
    given, true = (Counter(re.findall(r"\w+", text.lower())) for text in (answer, reference))
    common = (given & true).total()
    return 2 * common / (given.total() + true.total()) if common else 0.0
