"""Settings that differ between a checkpoint and the run that goes on from it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmavlm.core.errors import ConfigError
from mmavlm.data.encoder_cards import local_files
from mmavlm.weights.checkpoint import RUN_KEY

log = logging.getLogger(__name__)

# What changes where a run lies, how it is watched or how fast it is, but not what it learns.
# `max_epochs` is here because a longer training is what a finished one is resumed for.
HARMLESS = (
    "resume", "resume_accept", "checkpoint", "test", "report", "prepare", "paths", "logger",
    "callbacks",
    "init.alignment", "init.checkpoint", "init.experiment", "init.allow_random", "init.required",
    "stage.calibrate", "data.num_workers", "data.timeout_s",
    "data.max_broken", "data.reader.store", "data.keep_frames", "data.index", "data.decode_threads",
    "data.eval_batch_size", "trainer.accelerator", "trainer.strategy", "trainer.max_epochs",
    "trainer.max_steps", "trainer.max_time", "trainer.log_every_n_steps", "trainer.profiler",
    "trainer.default_root_dir", "trainer.enable_progress_bar", "trainer.enable_model_summary",
    "trainer.num_sanity_val_steps", "trainer.limit_val_batches", "trainer.limit_test_batches",
    "trainer.check_val_every_n_epoch", "trainer.val_check_interval", "trainer.deterministic",
    "compiler",
)  # fmt: skip
UNTOLD = ("resume", "resume_accept", "paths", "init.alignment", "init.checkpoint",
          "trainer.default_root_dir")  # fmt: skip
# Names of settings of any part that trade memory for time.
HARMLESS_NAMES = {
    "chunk_size", "rank_chunk", "compile_backend", "gradient_checkpointing", "cache_keys"
}  # fmt: skip
# What of all this changes no answer of a test; weights, items and processes are compared apart.
ANSWERS_STAY = (
    "resume", "resume_accept", "checkpoint", "test", "report", "paths", "logger", "format",
    "optimizer",
    "init.alignment", "init.checkpoint", "init.experiment", "init.allow_random", "init.required",
    "stage.monitor", "data.num_workers", "data.timeout_s", "data.max_broken", "data.keep_frames",
    "data.index", "data.decode_threads", "trainer.max_epochs", "trainer.max_steps",
    "trainer.max_time", "trainer.log_every_n_steps", "trainer.profiler", "trainer.logger",
    "trainer.default_root_dir", "trainer.enable_progress_bar", "trainer.enable_model_summary",
    "trainer.num_sanity_val_steps", "trainer.limit_train_batches", "trainer.limit_val_batches",
    "trainer.limit_test_batches", "trainer.check_val_every_n_epoch", "trainer.val_check_interval",
)  # fmt: skip
# Callbacks that answer a test, too, and keep what they made of it.
ANSWERING = ("callbacks.habit", "callbacks.decodings", "callbacks.explanations")
# With these an epoch has other batches, so a place within it means nothing.
OF_EPOCHS = ("data", "trainer.devices", "trainer.num_nodes", "trainer.accumulate_grad_batches")
OF_A_SET = re.compile(r"^data\.sets\.[^.]+\.")
SHOWN = 20

Change = tuple[Any, Any]


def require_same_settings(config: DictConfig, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on from a checkpoint with other settings, but for what is harmless or accepted.

    Changes that are harmless or named by `resume_accept` are listed in the log.

    Raises:
        ConfigError: listing what differs, or if the checkpoint lies within an epoch that would have
            other batches now.
    """
    before = checkpoint[RUN_KEY].get("config")
    if before is None:
        log.info("%s does not say with which settings it was trained", path)
        return
    changes = changed_settings(before, OmegaConf.to_container(config, resolve=True))
    accepted = list(config.get("resume_accept") or ())
    refused = {
        key: change
        for key, change in changes.items()
        if (not _is_harmless(key) or _makes_another_set(key, change)) and not _below(key, accepted)
    }
    if refused:
        keys = ",".join(refused)
        raise ConfigError(
            f"{path} was trained with other settings:\n{_listed(refused)}\n"
            f"set them as they were, or to go on with the new ones add 'resume_accept=[{keys}]'"
        )
    told = {key: change for key, change in changes.items() if not _below(key, UNTOLD)}
    if told:
        log.info("goes on from %s with other settings:\n%s", path, _listed(told))
    of_epochs = [key for key in changes if not _is_harmless(key) and _below(key, OF_EPOCHS)]
    of_epochs = [key for key in of_epochs if _in_one_set(key) != "data.root"]
    if of_epochs and _within_epoch(checkpoint):
        raise ConfigError(
            f"{path} lies within an epoch, which has other batches with the new "
            f"{', '.join(of_epochs)}; go on from the end of an epoch: "
            f"resume={path.with_name('last.ckpt')}"
        )


def changed_settings(before: Any, now: Any) -> dict[str, Change]:
    """Each setting that differs, with both values; None is as good as one that is not there.

    A setting that others are copied from (`seed`, `data.seed`) is listed alone.
    """
    old, new = dict(_leaves(before)), dict(_leaves(now))
    changes = {
        key: (old.get(key), new.get(key))
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    }
    return {
        key: change
        for key, change in changes.items()
        if not any(key != k and key.endswith(k) and change == changes[k] for k in changes)
    }


def settings_of_answers(config: DictConfig) -> dict[str, Any]:
    """The settings, by their full names, that the answers of a test follow.

    Beside one that names a file or folder, such as one of weights, stand sizes and times of change.
    """
    plain = _leaves(OmegaConf.to_container(config, resolve=True))
    kept = {
        key: value
        for key, value in plain
        if _below(key, ANSWERING) or not _below(key, (*ANSWERS_STAY, "callbacks"))
    }
    return {
        key: [value, *files] if (files := [] if _below(key, ("data",)) else local_files(value))
        else value
        for key, value in kept.items()
    }  # fmt: skip


def _leaves(settings: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Settings by their full names; lists are values, and what is empty is None."""
    if not isinstance(settings, Mapping):
        plain = list(settings) if isinstance(settings, list | tuple) else settings
        return [(prefix, None if plain == [] else plain)]
    return [
        leaf
        for key, value in settings.items()
        for leaf in _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    ]


def _makes_another_set(key: str, change: Change) -> bool:
    """Whether a setting of what makes the films was changed, which makes others in their place.

    One that is not there on either side is a default; twins (`counterfactual`) come beside them.
    """
    made = key.startswith("prepare.settings.") and not key.endswith(".counterfactual")
    return made and None not in change


def _is_harmless(key: str) -> bool:
    return _below(_in_one_set(key), HARMLESS) or key.rpartition(".")[2] in HARMLESS_NAMES


def _in_one_set(key: str) -> str:
    """The name that a setting of a set in a mix has where that set stands alone."""
    return OF_A_SET.sub("data.", key)


def _below(key: str, groups: Sequence[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _listed(changes: Mapping[str, Change]) -> str:
    lines = [f"  {key}: {before} → {now}" for key, (before, now) in changes.items()]
    more = [f"  … and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join(lines[:SHOWN] + more)


def _within_epoch(checkpoint: Mapping[str, Any]) -> bool:
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    return not progress["is_last_batch"]
