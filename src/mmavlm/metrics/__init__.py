"""Accuracy, captions, retrieval, hallucination; predictions on file; intervals and tests."""

from typing import TYPE_CHECKING

from mmavlm.core.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.metrics.accuracy import AnswerAccuracy
    from mmavlm.metrics.answers import answer_accuracy
    from mmavlm.metrics.caption_scores import CaptionScores
    from mmavlm.metrics.captions import check_monitor, left_out, score_captions
    from mmavlm.metrics.chair import Chair
    from mmavlm.metrics.comparison import Comparison, Difference, compare_predictions
    from mmavlm.metrics.groups import GroupAccuracy
    from mmavlm.metrics.intervals import (
        McNemar,
        bootstrap_interval,
        paired_mcnemar,
        wilson_interval,
    )
    from mmavlm.metrics.judged import (
        JudgedPair,
        JudgedScore,
        PairedItem,
        ScoredItem,
        judged_pairs,
        judged_scores,
    )
    from mmavlm.metrics.objects import ObjectVocabulary, SoundVocabulary
    from mmavlm.metrics.order import OrderAccuracy
    from mmavlm.metrics.paired import PairedAccuracy
    from mmavlm.metrics.parsing import Parsing, parse_letters, parse_order, parse_yes_no
    from mmavlm.metrics.prediction_files import (
        PredictionFile,
        missing_rows,
        predictions_path,
        read_predictions,
        write_predictions,
    )
    from mmavlm.metrics.predictions import Prediction, check_rule
    from mmavlm.metrics.resampling import Paired, paired_difference
    from mmavlm.metrics.rescoring import score_predictions
    from mmavlm.metrics.retrieval import RetrievalRecall, retrieval_recall
    from mmavlm.metrics.rules import Compare, Rule, is_right, normalise_answer
    from mmavlm.metrics.sah import SAHRatio
    from mmavlm.metrics.scoring import TaskScores
    from mmavlm.metrics.taken import Kind
    from mmavlm.metrics.unparsed import UnparsedRate
    from mmavlm.metrics.yes_no import YesNoStats

__all__ = [
    "AnswerAccuracy",
    "CaptionScores",
    "Chair",
    "Compare",
    "Comparison",
    "Difference",
    "GroupAccuracy",
    "JudgedPair",
    "JudgedScore",
    "Kind",
    "McNemar",
    "ObjectVocabulary",
    "OrderAccuracy",
    "Paired",
    "PairedAccuracy",
    "PairedItem",
    "Parsing",
    "Prediction",
    "PredictionFile",
    "RetrievalRecall",
    "Rule",
    "SAHRatio",
    "ScoredItem",
    "SoundVocabulary",
    "TaskScores",
    "UnparsedRate",
    "YesNoStats",
    "answer_accuracy",
    "bootstrap_interval",
    "check_monitor",
    "check_rule",
    "compare_predictions",
    "is_right",
    "judged_pairs",
    "judged_scores",
    "left_out",
    "missing_rows",
    "normalise_answer",
    "paired_difference",
    "paired_mcnemar",
    "parse_letters",
    "parse_order",
    "parse_yes_no",
    "predictions_path",
    "read_predictions",
    "retrieval_recall",
    "score_captions",
    "score_predictions",
    "wilson_interval",
    "write_predictions",
]

__getattr__, __dir__ = lazy_names(__name__)
