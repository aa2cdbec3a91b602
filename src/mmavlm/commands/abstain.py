"""Answers held back where a model is not sure, by a threshold that was chosen on a validation."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from mmavlm.core.errors import DataError
from mmavlm.core.files import write_whole
from mmavlm.core.metrics_file import finite, write_metrics
from mmavlm.metrics import Prediction, write_predictions
from mmavlm.metrics.headline import every_score
from mmavlm.metrics.prediction_files import FILE
from mmavlm.metrics.table import score_table

if TYPE_CHECKING:  # torch is imported when predictions have been read
    from mmavlm.metrics.abstention import Abstaining

TARGET = 0.9
CURVE = "abstention.json"

log = logging.getLogger(__name__)


def abstain(
    tested: Sequence[Prediction], chosen_on: Sequence[Prediction], target: float, folder: Path
) -> tuple[dict[str, Any], list[Table]]:
    """Choose when to abstain on one split, and what that comes to on another.

    Leaves metrics.json, the predictions with "I do not know" in place of answers held back, and
    abstention.json: calibration, threshold, and the curve of risk over coverage.

    Raises:
        ConfigError: if the target is no accuracy.
        DataError: if an item is in both splits, or says nothing of how sure its answer is.
    """
    from mmavlm.metrics.abstention import choose_abstaining, rights, risk_over_coverage

    _check_apart(tested, chosen_on)
    chosen = choose_abstaining(chosen_on, target)
    if chosen.calibration is None:
        log.warning("all answers of the validation are right, or all wrong: nothing is calibrated")
    if not isfinite(chosen.threshold):
        log.warning("no threshold gives target=%g in validation: nothing is answered", target)
    scores = _scores(tested, chosen)
    write_metrics(folder / "metrics.json", {f"test/{n}": value for n, value in scores.items()})
    write_predictions(folder / FILE, chosen.answered(tested))
    risks = risk_over_coverage(chosen.confidence(tested), rights(tested)).tolist()
    told = {
        "target": target,
        "threshold": chosen.threshold if isfinite(chosen.threshold) else None,
        "calibration": None if chosen.calibration is None else chosen.calibration._asdict(),
        "scores": finite(scores),
    }
    curve = [[(k + 1) / len(risks), risk] for k, risk in enumerate(risks)]
    write_whole(folder / CURVE, f"{json.dumps({**told, 'curve': curve})}\n".encode())
    how = f"abstains below {chosen.threshold:.3f}, chosen on the validation for target={target:g}"
    return told, [score_table(how, every_score(scores))]


def _scores(tested: Sequence[Prediction], chosen: Abstaining) -> dict[str, float]:
    """The scores of all items, and under the name of their task those of each."""
    from mmavlm.metrics.abstention import rights, selective_scores

    by_task: dict[str, list[Prediction]] = {"": list(tested)}
    for row in tested:
        by_task.setdefault(f"{row.task}/", []).append(row)
    return {
        f"{prefix}{name}": value
        for prefix, rows in by_task.items()
        for name, value in selective_scores(
            chosen.confidence(rows), rights(rows), chosen.threshold
        ).items()
    }


def _check_apart(tested: Sequence[Prediction], chosen_on: Sequence[Prediction]) -> None:
    both = {row.item_id for row in tested} & {row.item_id for row in chosen_on}
    if both:
        raise DataError(
            f"{len(both)} items are in predictions and in val_predictions, such as "
            f"{min(both)!r}; choose on another split than is tested"
        )
