"""Answers that are held back: how sure a model is, and what is gained where it says nothing.

Selective prediction (El-Yaniv and Wiener 2010; Geifman and El-Yaniv, arXiv 1705.08500). Shapes: N
items, ordered as they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import expm1, inf, isfinite, log, log1p

import torch
from torch import Tensor

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.interfaces import Answer
from mmavlm.metrics.duet.calibration import Calibration, calibration_of
from mmavlm.metrics.intervals import proportion
from mmavlm.metrics.predictions import Prediction

ABSTAINED = "I do not know"  # read as neither yes nor no, and as no option
BINS = 15  # of calibration errors, as usual since arXiv 1706.04599
ROUNDED = 1e-3  # so far above 0 a log-probability is by rounding
LEAST = 1e-12  # probabilities below it are not told apart, nor those as near to 1


@dataclass(frozen=True)
class Abstaining:
    """When an answer is held back: where its calibrated confidence is below `threshold`.

    `target` is the accuracy of the answers given that the threshold was chosen for; `calibration`
    is None where the validation's answers were all right, or all wrong, so that none could be
    fitted and probabilities are as the model gives them.
    """

    target: float
    calibration: Calibration | None
    threshold: float

    def confidence(self, predictions: Sequence[Prediction]) -> Tensor:
        """The calibrated probability (N,) that each answer is right."""
        found = margins(predictions)
        if self.calibration is not None:
            found = found / self.calibration.temperature + self.calibration.shift
        return found.sigmoid()

    def answered(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The same predictions with `ABSTAINED` in place of the answers held back."""
        given = (self.confidence(predictions) >= self.threshold).tolist()
        pairs = zip(predictions, given, strict=True)
        return [row if kept else _held_back(row) for row, kept in pairs]


def choose_abstaining(predictions: Sequence[Prediction], target: float) -> Abstaining:
    """When to abstain, chosen on a validation: as seldom as leaves `target` accuracy of the rest.

    Raises:
        ConfigError: if the target is not above 0 and at most 1.
        DataError: if a prediction says nothing of how sure it is, or is a caption.
    """
    if not 0 < target <= 1:
        raise ConfigError(
            f"target={target} must be above 0 and at most 1: the accuracy that answers have where "
            "the model does not abstain"
        )
    right = rights(predictions)
    calibration = calibration_of(margins(predictions), right)
    chosen = Abstaining(target, calibration, inf)
    confidence = chosen.confidence(predictions)
    return replace(chosen, threshold=threshold_for(confidence, right, target))


def threshold_for(confidence: Tensor, right: Tensor, target: float) -> float:
    """The least confidence at and above which a share `target` is right; inf where there is none.

    Answers (N,) of equal confidence are given together.
    """
    order, ends = _by_confidence(confidence)
    accuracy = right[order].double().cumsum(0)[ends] / (ends + 1)
    good = (accuracy >= target - 1e-9).nonzero()
    return float(confidence[order][ends[good[-1, 0]]]) if len(good) else inf


def margins(predictions: Sequence[Prediction]) -> Tensor:
    """How sure a model is of its best answers, log p − log(1 − p) in nats, float64 (N,).

    p is the answer's share among the ranked candidates, 0 if it is none of them; without
    candidates, the probability with which it was generated.

    Raises:
        DataError: if an answer has the score of a caption, or a number that is no log-probability.
    """
    return torch.tensor([_margin(row) for row in predictions], dtype=torch.float64)


def rights(predictions: Sequence[Prediction]) -> Tensor:
    """Whether each answer is right, bool (N,).

    Raises:
        DataError: if one is a caption, which is neither.
    """
    return torch.tensor([_right(row) for row in predictions])


def selective_scores(confidence: Tensor, right: Tensor, threshold: float) -> dict[str, float]:
    """What is gained by abstaining below a threshold: confidence and right are (N,).

    `coverage` is the share that is answered, `selective_accuracy` that of right ones among them
    (nan if there are none), `accuracy` that of all, both with their 95 % bounds, `aurc` the area
    under the curve of risk over coverage, `calibration_error` the expected one (see below).
    """
    given = confidence >= threshold
    return {
        **proportion("accuracy", int(right.sum()), len(right)),
        "coverage": float(given.double().mean()),
        **proportion("selective_accuracy", int(right[given].sum()), int(given.sum())),
        "aurc": float(risk_over_coverage(confidence, right).mean()),
        "calibration_error": expected_calibration_error(confidence, right),
        "count": float(len(right)),
    }


def risk_over_coverage(confidence: Tensor, right: Tensor) -> Tensor:
    """Share of wrong answers (N,) among the k surest, for k from 1 to N.

    Answers of equal confidence are in no order; the risk is the mean over all orders of theirs.
    """
    order, ends = _by_confidence(confidence)
    wrong = (~right.bool())[order].double()
    sizes = ends.diff(prepend=ends.new_tensor([-1]))
    group = torch.arange(len(ends)).repeat_interleave(sizes)
    share = torch.zeros(len(ends), dtype=torch.float64).index_add_(0, group, wrong) / sizes
    return share[group].cumsum(0) / torch.arange(1, len(wrong) + 1)


def expected_calibration_error(confidence: Tensor, right: Tensor, bins: int = BINS) -> float:
    """How far confidence (N,) is from the share of right answers (N,), from 0 to 1.

    The mean over `bins` of equal width in confidence, (0, 1/bins] first, weighted by their items
    (Naeini, Cooper and Hauskrecht 2015; arXiv 1706.04599).

    Raises:
        ConfigError: if there are no bins.
        ValueError: if a confidence is none, or there are not as many as answers, or none at all.
    """
    if bins < 1:
        raise ConfigError(f"bins={bins} must be 1 or more")
    confidence, right = confidence.double(), right.double()
    if confidence.shape != right.shape or not len(right):
        raise ValueError(
            f"there are confidences {tuple(confidence.shape)} of answers {tuple(right.shape)}; "
            "expected as many, and at least one"
        )
    if not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise ValueError("a confidence is below 0 or above 1, or nan")
    return float(mean_gap(calibration_gaps(confidence, right, bins).sum(dim=0)))


def calibration_gaps(confidence: Tensor, right: Tensor, bins: int = BINS) -> Tensor:
    """What each of N answers adds to the calibration error, the `mean_gap` of sums: (N,bins+1)."""
    place = ((confidence * bins).ceil().long() - 1).clamp(min=0)
    gaps = torch.zeros(len(right), bins + 1, dtype=torch.float64)
    gaps[torch.arange(len(right)), place] = confidence.double() - right.double()
    gaps[:, -1] = 1
    return gaps


def mean_gap(sums: Tensor) -> Tensor:
    """The calibration error (…) of sums (…,bins+1) of `calibration_gaps`."""
    return sums[..., :-1].abs().sum(dim=-1) / sums[..., -1]


def _by_confidence(confidence: Tensor) -> tuple[Tensor, Tensor]:
    """Items (N,) from the surest on, and the last place of each group of equal ones."""
    order = confidence.argsort(descending=True, stable=True)
    sizes = confidence[order].unique_consecutive(return_counts=True)[1]
    return order, sizes.cumsum(0) - 1


def _margin(row: Prediction) -> float:
    if row.compare == "caption":
        raise _caption(row)
    best = (row.answers or row.ranking)[0]
    share = best.log_prob
    if row.ranking:
        log_probs = torch.tensor([a.log_prob for a in row.ranking], dtype=torch.float64)
        shares = dict(zip((a.text for a in row.ranking), log_probs.log_softmax(0), strict=True))
        share = float(shares.get(best.text, -inf))
    elif not isfinite(share) or share > ROUNDED:
        raise DataError(
            f"item {row.item_id!r} has the log-probability {share}, which says nothing of how sure "
            "the answer is (it is at most 0); evaluate the checkpoint again"
        )
    share = min(max(share, log(LEAST)), log1p(-LEAST))
    return share - log(-expm1(share))


def _right(row: Prediction) -> bool:
    if (right := row.right) is None:
        raise _caption(row)
    return right


def _caption(row: Prediction) -> DataError:
    return DataError(
        f"item {row.item_id!r} is scored as a caption, which is neither right nor wrong; abstain "
        "in tasks with one right answer"
    )


def _held_back(row: Prediction) -> Prediction:
    held = [Answer(ABSTAINED, (row.answers or row.ranking)[0].log_prob)]
    if row.answers:
        return replace(row, answers=held, said=[ABSTAINED] if row.said else [])
    return replace(row, ranking=held)
