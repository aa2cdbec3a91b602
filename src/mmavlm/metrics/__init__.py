"""Accuracy, retrieval and the intervals and tests that small test sets call for."""

from mmavlm.metrics.answers import AnswerAccuracy, Compare, answer_accuracy, normalise_answer
from mmavlm.metrics.confusion import confusion
from mmavlm.metrics.intervals import McNemar, paired_mcnemar, wilson_interval
from mmavlm.metrics.retrieval import RetrievalRecall, retrieval_recall

__all__ = [
    "AnswerAccuracy",
    "Compare",
    "McNemar",
    "RetrievalRecall",
    "answer_accuracy",
    "confusion",
    "normalise_answer",
    "paired_mcnemar",
    "retrieval_recall",
    "wilson_interval",
]
