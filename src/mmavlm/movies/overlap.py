"""The judge without a model: answers and reference compared word by word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from mmavlm.core.errors import ConfigError
from mmavlm.movies.generators.text import TextRequest, TextResult
from mmavlm.movies.verdicts import (
    INSTRUCTIONS,
    PairVerdict,
    ScoreVerdict,
    ShortVerdict,
)
from mmavlm.movies.vocabulary import Words

RIGHT_FROM = 0.5  # so much of F1 is a right answer


class OverlapJudge:
    """Judges by the F1 of words; its numbers compare with no published ones."""

    fingerprint = "overlap 2, not comparable with an LLM's verdicts"

    def complete(self, request: TextRequest) -> TextResult:
        """The verdict as JSON: scores are 5 times the F1.

        In a pair equal F1 is a tie. The temporal score is the F1 of the longest common sequence of
        words, so their order counts; consistency is the lowest F1 of the two answers and reference.

        Raises:
            ConfigError: if something else than a verdict is asked for.
        """
        aspect = request.task.removeprefix("judge_")
        if aspect == request.task or aspect not in INSTRUCTIONS:
            raise ConfigError(f"the overlap judge gives verdicts, it does not write {request.task}")
        return TextResult(_verdict(aspect, request.context).model_dump_json())


def _verdict(aspect: str, told: Mapping[str, Any]) -> Words:
    reference = _words(told["reference"])
    if aspect == "pair":
        first, second = (_f1(_words(told[key]), reference) for key in ("first", "second"))
        better = "tie" if first == second else "first" if first > second else "second"
        return PairVerdict.model_validate(
            {"better": better, "first": 5 * first, "second": 5 * second}
        )
    if aspect == "consistency":
        one, two = (_words(told[f"{place} answer"]) for place in ("first", "second"))
        return ScoreVerdict(score=5 * min(_f1(one, two), _f1(one, reference), _f1(two, reference)))
    answer = _words(told["answer"])
    if aspect == "temporal":
        return ScoreVerdict(score=5 * _ordered_f1(answer, reference))
    f1 = _f1(answer, reference)
    if aspect == "short":
        return ShortVerdict(correct=f1 >= RIGHT_FROM, score=5 * f1)
    return ScoreVerdict(score=5 * f1)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _f1(given: list[str], true: list[str]) -> float:
    common = (Counter(given) & Counter(true)).total()
    return 2 * common / (len(given) + len(true)) if common else 0.0


def _ordered_f1(given: list[str], true: list[str]) -> float:
    lengths = [0] * (len(true) + 1)  # of the longest sequence common to what was read so far
    for word in given:
        diagonal = 0
        for number, other in enumerate(true, start=1):
            above = lengths[number]
            same = diagonal + 1 if word == other else 0
            lengths[number] = max(above, lengths[number - 1], same)
            diagonal = above
    return 2 * lengths[-1] / (len(given) + len(true)) if lengths[-1] else 0.0
