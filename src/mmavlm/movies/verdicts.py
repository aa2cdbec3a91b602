"""What a judge is asked about answers, and the forms of its verdicts.

An answer is judged by itself (right or wrong with a score, or one of Video-ChatGPT's scores), two
answers to two wordings of one question for their consistency, and the answers of two models against
each other (MovieLLM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import Field

from mmavlm.core.errors import ConfigError
from mmavlm.movies.generators.text import TextRequest
from mmavlm.movies.vocabulary import Words

Aspect = Literal["short", "correctness", "detail", "context", "temporal", "consistency"]
ASPECTS: tuple[Aspect, ...] = get_args(Aspect)
MAX_TOKENS = 256

_COMPARED = "An answer to a question about a film is compared with the reference. "
INSTRUCTIONS: Mapping[str, str] = {
    "short": _COMPARED + "Say whether it is correct, meaning the same in other words is, and score "
    "it from 0 to 5.",
    "correctness": _COMPARED + "Score from 0 to 5 whether what it states is true: what contradicts "
    "the reference, or is made up, costs most; other words for the same cost nothing.",
    "detail": _COMPARED + "Score from 0 to 5 how much of the reference it covers, and how "
    "specifically: a point that is missing or vague costs something.",
    "context": _COMPARED + "Score from 0 to 5 whether it fits what the film is about as a whole, "
    "as the reference shows it, even if single facts differ.",
    "temporal": _COMPARED + "Score from 0 to 5 whether the events it tells come in the order of "
    "the reference.",
    "consistency": "One thing was asked about a film in two ways, and one reference answers both "
    "questions. Score from 0 to 5 whether the two answers agree with each other and with the "
    "reference.",
    "pair": "Two answers to a question about a film are compared with the reference. Weigh detail, "
    "the relations of the people, and the end; mark repetition down, and look at the order of what "
    "is listed. Say which is better (first, second, or tie) and score each from 0 to 5.",
}


class PairVerdict(Words):
    """Which of two answers is better, and a score of each, 0 to 5."""

    better: Literal["first", "second", "tie"]
    first: float = Field(ge=0, le=5)
    second: float = Field(ge=0, le=5)


class ScoreVerdict(Words):
    """A score, 0 to 5."""

    score: float = Field(ge=0, le=5)


class ShortVerdict(ScoreVerdict):
    """Whether an answer is right, and its score, 0 to 5."""

    correct: bool


@dataclass(frozen=True)
class Answered:
    """A question, its true answer, and the answer to be judged."""

    question: str
    reference: str
    answer: str

    def request(self, aspect: Aspect) -> TextRequest:
        """What the judge is asked about one aspect of the answer, but for consistency."""
        told = {"question": self.question, "reference": self.reference, "answer": self.answer}
        return _request(aspect, told, form_of(aspect))


@dataclass(frozen=True)
class AnsweredTwice:
    """Two wordings of a question, the true answer of both, and the answers to be judged."""

    questions: tuple[str, str]
    reference: str
    answers: tuple[str, str]

    def request(self) -> TextRequest:
        """What the judge is asked about the consistency of the answers."""
        told = {
            "first question": self.questions[0],
            "second question": self.questions[1],
            "reference": self.reference,
            "first answer": self.answers[0],
            "second answer": self.answers[1],
        }
        return _request("consistency", told, ScoreVerdict)


@dataclass(frozen=True)
class Case:
    """A question, its true answer, and the answers of two models."""

    question: str
    reference: str
    ours: str
    other: str

    def requests(self) -> tuple[TextRequest, TextRequest]:
        """What the judge is asked: with ours first, and with the other first."""
        return self._ordered(self.ours, self.other), self._ordered(self.other, self.ours)

    def _ordered(self, first: str, second: str) -> TextRequest:
        told = {
            "question": self.question,
            "reference": self.reference,
            "first": first,
            "second": second,
        }
        return _request("pair", told, PairVerdict)


def form_of(aspect: Aspect) -> type[ScoreVerdict]:
    """The form of the verdicts on an aspect."""
    return ShortVerdict if aspect == "short" else ScoreVerdict


def check_aspect(name: str) -> Aspect:
    """The aspect of that name.

    Raises:
        ConfigError: if there is none.
    """
    for aspect in ASPECTS:
        if aspect == name:
            return aspect
    raise ConfigError(f"aspects: {name!r} is unknown; choose of {', '.join(ASPECTS)}")


def _request(task: str, told: Mapping[str, Any], form: type[Words]) -> TextRequest:
    return TextRequest(
        f"judge_{task}", INSTRUCTIONS[task], told, form.model_json_schema(), 0, MAX_TOKENS
    )
