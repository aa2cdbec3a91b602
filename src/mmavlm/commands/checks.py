"""Mistakes that a config shows by itself, told before a model or a film is touched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmavlm.core.chat_formats import CHAT_FORMATS
from mmavlm.core.config_files import choices
from mmavlm.core.errors import ConfigError
from mmavlm.core.given_files import AUTO, require_checkpoint, require_weights
from mmavlm.core.nearest import nearest
from mmavlm.core.settings import above_zero, require_positions, whole_at_least
from mmavlm.data.parts import parts_of
from mmavlm.data.readers.json_files import require_root
from mmavlm.data.shards.places import is_address

MOST_FPS = 1000
# Parts of a model that there may be none of.
OPTIONAL_PARTS = ("alignment", "contrast", "heads", "saliency", "sound")


def check_config(config: DictConfig) -> None:
    """Refuse roots, checkpoints, weights and experiments that are not there, and too many frames.

    Raises:
        ConfigError: naming the setting, if a root or an experiment is missing, the table of frame
            positions is too short, or something is set for a part that there is none of.
        CheckpointError: naming a file that is not there.
        MissingMandatoryValue: if a root is not set.
    """
    check_sources(config)
    _check_parts(config)
    rows = _frame_positions(config)
    for part in parts_of(config.data).values():
        # else the set is yet to be made, or lies elsewhere
        if config.prepare is None and not is_address(part.root):
            require_root(Path(part.root))
        if rows is not None and isinstance(part.num_frames, int):
            require_positions(part.num_frames, rows)


def _frame_positions(config: DictConfig) -> int | None:
    """The rows of the table that all frames need one of, or None where they need none.

    Stage 1, which has no LLM, may look at the first frames alone: the model tells.
    """
    rows = OmegaConf.select(config, "vision.max_num_frames")
    aligned_alone = OmegaConf.select(config, "backbone.llm") is None
    without = OmegaConf.select(config, "vision.position_init") == "none"
    return None if without or aligned_alone or not isinstance(rows, int) else rows


def _check_parts(config: DictConfig) -> None:
    """Refuse settings of a part that is none: an experiment that lays them over expects one."""
    for name in OPTIONAL_PARTS:
        part = config.get(name)
        if OmegaConf.is_dict(part) and part and "_target_" not in part:
            given = ", ".join(f"{name}.{key}" for key in part)
            raise ConfigError(
                f"{name}=none builds no such part, but what is laid over it sets {given}; choose "
                f"another {name}, or an experiment, arm or remedy that does without"
            )


def check_sources(config: DictConfig) -> None:
    """Refuse what a model is to start from, if it is not there.

    Raises:
        ConfigError: if `init.experiment` is no experiment, `llm.chat_template` no template, or
            frames, beams or the like are no numbers that can be.
        CheckpointError: naming a file that is not there.
    """
    _check_chat_template(OmegaConf.select(config, "llm.chat_template"))
    _check_numbers(config)
    first = config.init.experiment
    if first is not None and first not in (known := choices("experiment")):
        near = ", ".join(nearest(str(first), known, 5, least=3))
        raise ConfigError(f"init.experiment={first} is no experiment; nearest are {near}")
    given = (config.checkpoint, config.init.alignment, config.init.checkpoint, config.resume)
    for path in given:
        if path not in (None, AUTO):
            require_checkpoint(Path(path))
    if config.init.weights is not None:
        require_weights(Path(config.init.weights))


def check_rate(name: str, fps: Any) -> None:
    """Refuse a rate of frames that is none, or more than any film has.

    Raises:
        ConfigError: naming the setting.
    """
    above_zero("", **{name: fps})
    if fps is not None and fps > MOST_FPS:
        raise ConfigError(f"{name} must be at most {MOST_FPS}, got {fps}; no film shows more")


def _check_numbers(config: DictConfig) -> None:
    """Refuse counts and rates that are none, which would else be told where they are used."""
    for name, part in parts_of(config.data).items():
        group = f"data.sets.{name}" if name else "data"
        whole_at_least(group, 1, **{key: part.get(key) for key in ("num_frames", "image_size")})
        above_zero(group, **{key: part.get(key) for key in ("sample_fps", "frame_fps")})
    counts = ("num_beams", "num_answers", "max_new_tokens")
    whole_at_least("stage", 1, **{key: config.stage.get(key) for key in counts})


def _check_chat_template(choice: Any) -> None:
    """Refuse what names no format and no file; a Jinja template shows itself by its braces."""
    known = (AUTO, "none", *CHAT_FORMATS)
    if choice is None or choice in known or "{" in (name := str(choice)):
        return
    # false, and not an error, where a name is too long for a file's
    if not os.path.isfile(os.path.expanduser(name)):
        near = ", ".join(nearest(name, known, 5, least=3))
        raise ConfigError(
            f"llm.chat_template={name} is no format, no Jinja template, and no file; "
            f"nearest are {near}"
        )
