"""Where a run goes on: at a checkpoint that is named, or at the newest in its own folder."""

from __future__ import annotations

import csv
import logging
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf

from mmavlm.core.errors import CheckpointError
from mmavlm.core.files import remove_partials
from mmavlm.core.given_files import AUTO
from mmavlm.core.metrics_file import read_metrics
from mmavlm.run.changes import require_same_settings
from mmavlm.weights.checkpoint import newest_checkpoint, read_checkpoint

log = logging.getLogger(__name__)

OF_RESUMING = ("resume", "resume_accept")


def checkpoint_to_resume(config: DictConfig) -> tuple[Path, int] | None:
    """The checkpoint that `resume` names or, with `resume=auto`, finds; None to start anew.

    With it comes how many optimizer steps were done.

    Raises:
        CheckpointError: if the named one cannot be read or is an exported model.
        ConfigError: if it was trained with other settings that are not accepted.
    """
    if config.resume is None:
        return None
    if config.resume != AUTO:
        checkpoint = read_checkpoint(config.resume)
        if Path(config.resume).is_dir():
            raise CheckpointError(
                f"resume={config.resume} is an exported model, which has no optimizer to go on "
                "with; give a .ckpt file, or to start from its weights "
                f"init.weights={config.resume}/model.safetensors"
            )
        require_same_settings(config, checkpoint, Path(config.resume))
        return Path(config.resume), checkpoint["global_step"]
    folders = checkpoint_folders(config)
    for folder in folders:
        remove_partials(folder)
    found = newest_checkpoint(folders)
    where = " or ".join(map(str, folders))
    if found is None:
        log.info("resume=auto: no checkpoint in %s, the run starts anew", where)
        return None
    path, step = found[0], found[1]["global_step"]
    require_same_settings(config, found[1], path)
    log.info("resume=auto: the run goes on from %s (step %d)", path, step)
    return path, step


def checkpoint_folders(config: DictConfig) -> list[Path]:
    """The folders the callbacks of a run write checkpoints to."""
    callbacks = [c for c in config.callbacks.values() if c is not None and c.get("dirpath")]
    return [Path(folder) for folder in dict.fromkeys(str(c.dirpath) for c in callbacks)]


def is_finished(config: DictConfig) -> bool:
    """Whether `resume=auto` finds a run of this very config that has written all it leaves."""
    written = Path(config.paths.run) / "config.yaml"
    if config.resume != AUTO or not written.is_file():
        return False
    return _without_resume(OmegaConf.load(written)) == _without_resume(config)


def _without_resume(config: Any) -> Any:
    plain = OmegaConf.to_container(config, resolve=True)
    return {key: value for key, value in dict(plain).items() if key not in OF_RESUMING}  # type: ignore[arg-type]


def recall(config: DictConfig, trainer: L.Trainer) -> dict[str, float]:
    """The metrics of a finished run from its folder; its best checkpoint is told to `trainer`."""
    newest = newest_checkpoint(checkpoint_folders(config))
    states = {} if newest is None else newest[1]["callbacks"]
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.state_key in states:
            callback.load_state_dict(states[callback.state_key])
    log.info("resume=auto: the run in %s is finished", config.paths.run)
    return read_metrics(Path(config.paths.run) / "metrics.json")


def go_on_logging(trainer: L.Trainer, step: int) -> None:
    """Keep what csv logs say of the steps before `step`; Lightning would begin them anew."""
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger) or not trainer.is_global_zero:
            continue
        kept = list(_rows_before(Path(logger.log_dir) / "metrics.csv", step))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Experiment logs directory")
            logger.experiment.metrics = kept


def _rows_before(path: Path, step: int) -> Iterable[dict[str, Any]]:
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            # a killed process may leave half a row behind
            if (row.get("step") or "").isdigit() and int(row["step"]) < step:
                yield {name: value for name, value in row.items() if value}
