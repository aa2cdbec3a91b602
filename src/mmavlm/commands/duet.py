"""Films that were watched as they ran, scored by one of the tasks there are for them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from mmavlm.commands.duet_tasks import READS, TASKS, files_of_run
from mmavlm.core.errors import ConfigError
from mmavlm.core.files import write_whole
from mmavlm.core.metrics_file import write_metrics
from mmavlm.core.nearest import nearest
from mmavlm.core.settings import at_least, whole_at_least
from mmavlm.metrics.headline import every_score
from mmavlm.metrics.table import score_table
from mmavlm.metrics.words import COUNTS
from mmavlm.movies.generators.text import TextGenerator

log = logging.getLogger(__name__)

SCORES = "duet.json"
OPTIONAL = sorted(set().union(*READS.values()) | {"rule", "compare", "target"})


def score_watched(
    config: DictConfig, folder: Path, judge: TextGenerator | None
) -> tuple[dict[str, Any], list[Table]]:
    """The scores of watched films by `config.task`, left in metrics.json and duet.json.

    Raises:
        ConfigError: if a setting is missing, unknown, or of another task.
        DataError: if a file cannot be used, or films are chosen on and tested.
    """
    task = _known_task(config)
    result = TASKS[task](config, folder, judge)
    for remark in result.pairs.remarks():
        log.warning("%s", remark)
    write_metrics(folder / "metrics.json", {f"test/{n}": v for n, v in result.scores.items()})
    told = {
        "predictions": str(config.predictions),
        "truth": str(config.truth),
        "chosen_on": None if config.val_predictions is None else str(config.val_predictions),
        **result.summary,
    }
    write_whole(folder / SCORES, f"{json.dumps(told, indent=2)}\n".encode())
    shown = [s for s in every_score(result.scores) if s.kind not in COUNTS or s.value]
    title = "\n".join(filter(None, [f"{config.predictions}, {task}", result.how_chosen]))
    return told, [score_table(title, shown)]


def _known_task(config: DictConfig) -> str:
    """The task, if there is one of that name, with no setting of another.

    Raises:
        ConfigError: naming what is missing, unknown, or of another task.
    """
    task = config.task
    if task not in TASKS:
        near = ", ".join(nearest(str(task), TASKS, len(TASKS), least=len(TASKS)))
        raise ConfigError(f"task={task} is unknown; choose one of {near}")
    files_of_run(config, READS[task])
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
