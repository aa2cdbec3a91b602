"""Films that were watched as they ran, scored by one of the tasks there are for them."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from mmavlm.commands.duet_tasks import READS, TASKS, Result, watched_path
from mmavlm.core.errors import ConfigError
from mmavlm.core.files import write_whole
from mmavlm.core.metrics_file import finite, write_metrics
from mmavlm.core.nearest import nearest
from mmavlm.core.settings import at_least, whole_at_least
from mmavlm.metrics.duet.choosing import GIVEN
from mmavlm.metrics.duet.films import Paired
from mmavlm.metrics.headline import every_score
from mmavlm.metrics.table import score_table
from mmavlm.metrics.words import COUNTS
from mmavlm.movies.generators.text import TextGenerator

log = logging.getLogger(__name__)

SCORES = "duet.json"
NAMED = 10  # so many questions are named, the others counted
OPTIONAL = sorted(set().union(*READS.values()) | {"rule", "compare"})


def score_watched(
    config: DictConfig, folder: Path, judge: TextGenerator | None
) -> tuple[dict[str, Any], list[Table]]:
    """The scores of watched films by `config.task`, left in metrics.json and duet.json.

    Raises:
        ConfigError: if a setting is missing, unknown, or of another task.
        DataError: if a file cannot be used, or films are chosen on and tested.
    """
    task = _known_task(config)
    path = watched_path(config.predictions)
    result, pairs = TASKS[task](config, path, folder, judge)
    _tell(pairs)
    values = {f"{task}/{name}": value for name, value in result.values.items()}
    write_metrics(folder / "metrics.json", {f"test/{name}": v for name, v in values.items()})
    told: dict[str, Any] = {
        "task": task,
        "predictions": str(path),
        "truth": str(config.truth),
        "chosen": None if result.chosen is None else asdict(result.chosen),
        "chosen_on": None if config.val_predictions is None else str(config.val_predictions),
        "missing": pairs.missing,
        "unasked": list(pairs.unasked),
        "eventless": list(pairs.eventless),
        "scores": finite(values),
    }
    write_whole(folder / SCORES, f"{json.dumps(told, indent=2)}\n".encode())
    shown = [score for score in every_score(values) if score.kind not in COUNTS or score.value]
    return told, [score_table("\n".join([f"{path}, {task}", *_how_chosen(result)]), shown)]


def _known_task(config: DictConfig) -> str:
    """The task, if there is one of that name, with no setting of another.

    Raises:
        ConfigError: naming what is missing, unknown, or of another task.
    """
    task = config.task
    if task not in TASKS:
        near = ", ".join(nearest(str(task), TASKS, len(TASKS), least=len(TASKS)))
        raise ConfigError(f"task={task} is unknown; choose one of {near}")
    if config.predictions is None or config.truth is None:
        raise ConfigError(f"task={task} needs predictions=… and truth=…, the files of one split")
    if (config.val_predictions is None) != (config.val_truth is None):
        raise ConfigError("give val_predictions=… and val_truth=… together, or neither")
    given = [name for name in OPTIONAL if config.get(name) is not None]
    if other := [name for name in given if name not in READS[task]]:
        raise ConfigError(
            f"task={task} does not read {', '.join(other)}; it reads "
            f"{', '.join(sorted(READS[task])) or 'no such setting'}"
        )
    whole_at_least("", 0, window=config.window)
    at_least(
        "", 0, threshold=config.threshold, pause_s=config.pause_s, tolerance_s=config.tolerance_s
    )
    return str(task)


def _tell(pairs: Paired[Any]) -> None:
    """Name the questions that only one of the files has, or to which nothing is to be found."""
    for questions, told in (
        (pairs.missing, "questions that were not watched, and count as wrong"),
        (pairs.unasked, "questions that the truth does not have, and are left out"),
        (pairs.eventless, "questions to which nothing is to be found, and are left out"),
    ):
        if questions:
            more = " …" if len(questions) > NAMED else ""
            shown = f"{', '.join(questions[:NAMED])}{more}"
            log.warning("%s (%d): %s", told, len(questions), shown)


def _how_chosen(result: Result) -> list[str]:
    """The setting in words, and which split chose it."""
    chosen = result.chosen
    if chosen is None:
        return []
    setting = chosen.setting if isinstance(chosen.setting, int) else asdict(chosen.setting)
    shown = " ".join(
        f"{name}={'+'.join(value) if isinstance(value, tuple) else value}"
        for name, value in ({"window": setting} if isinstance(setting, int) else setting).items()
    )
    if chosen.split == GIVEN:
        return [f"{shown}, as given"]
    best = f"{chosen.by} {chosen.value:.3f} over {chosen.questions} questions"
    return [f"{shown}, chosen on {chosen.split}: {best}"]
