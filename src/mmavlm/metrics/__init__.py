"""Accuracy, retrieval, hallucination, and the intervals and tests that small test sets call for."""

from mmavlm.metrics.answers import AnswerAccuracy, Compare, answer_accuracy, normalise_answer
from mmavlm.metrics.chair import Chair
from mmavlm.metrics.confusion import confusion
from mmavlm.metrics.groups import GroupAccuracy
from mmavlm.metrics.intervals import McNemar, bootstrap_interval, paired_mcnemar, wilson_interval
from mmavlm.metrics.objects import ObjectVocabulary
from mmavlm.metrics.order import OrderAccuracy
from mmavlm.metrics.paired import PairedAccuracy
from mmavlm.metrics.parsing import Parsing, parse_letters, parse_order, parse_yes_no
from mmavlm.metrics.retrieval import RetrievalRecall, retrieval_recall
from mmavlm.metrics.sah import SAHRatio
from mmavlm.metrics.unparsed import UnparsedRate
from mmavlm.metrics.yes_no import YesNoStats

__all__ = [
    "AnswerAccuracy",
    "Chair",
    "Compare",
    "GroupAccuracy",
    "McNemar",
    "ObjectVocabulary",
    "OrderAccuracy",
    "PairedAccuracy",
    "Parsing",
    "RetrievalRecall",
    "SAHRatio",
    "UnparsedRate",
    "YesNoStats",
    "answer_accuracy",
    "bootstrap_interval",
    "confusion",
    "normalise_answer",
    "paired_mcnemar",
    "parse_letters",
    "parse_order",
    "parse_yes_no",
    "retrieval_recall",
    "wilson_interval",
]
