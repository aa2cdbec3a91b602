"""The model and the stage of a config, with the weights that it names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, cast

from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from mmavlm.core.contrast import Contrast
from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.mix import MixedDataModule
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.model.blip2 import take_pretrained
from mmavlm.run.features import build_encoder, encoder_parts, take_features
from mmavlm.stages.base import EVALUATED, Stage
from mmavlm.weights.allocation import allocation_limit
from mmavlm.weights.checkpoint import load_trainable, read_checkpoint
from mmavlm.weights.pretrained import PretrainedFolder
from mmavlm.weights.weight_files import ENCODER, PARTS, SOUND_ENCODER, WeightFile

log = logging.getLogger(__name__)

# Stage 1 has none of the first three; the form of the alignment loss may change.
DIFFERS_BETWEEN_STAGES = (
    "backbone.vision.projector.",
    "backbone.llm.",
    "backbone.vision.fusion.",
    "backbone.alignment.",
)


def build_stage(
    config: DictConfig, data: VideoDataModule, overrides: Sequence[str], splits: Sequence[str]
) -> Stage:
    """The stage of a config over its model; `data` takes the side of the encoder's pictures.

    With `data.cache` the features of `splits` are filled in first.
    """
    stage_class = get_class(config.stage._target_)
    require_settings_of(stage_class, config.stage)
    if config.get("contrast") is not None and "contrast" not in config.stage:
        raise ConfigError(
            f"stage {stage_class.__name__} generates and ranks no answers that contrast=… could "
            "change; leave it out, or choose stage=finetune"
        )
    stand_ins = None if data.cache is None else take_features(config, data, splits)
    backbone = build_backbone(config, stand_ins)
    if data.image_size is None:
        data.image_size = backbone.vision.encoder.image_size
    plain = OmegaConf.to_container(config, resolve=True)
    settings = {
        "backbone": backbone,
        "optimizer": instantiate(config.optimizer),
        "run": {"config": plain, "overrides": list(overrides)},
        **settings_of_data(stage_class, data, splits),
    }
    # called, not handed to Hydra, which would turn dataclasses and dicts into configs
    stage: Stage = instantiate(config.stage, _partial_=True)(**settings)
    if config.data.get("false_texts") and not _aligns(stage):
        raise ConfigError(
            "data.false_texts (hard negatives) are for the alignment, and nothing is aligned here; "
            "choose an alignment and a weight above 0 (alignment=…, stage.align_weight=1, or an "
            "arm that aligns), or leave them out"
        )
    return stage


def _aligns(stage: Stage) -> bool:
    """Whether a stage learns from its alignment: stage 1 always, others by their weights."""
    weights: Mapping[str, float] | None = getattr(stage, "align_weights", None)
    return weights is None or any(weights.values())


def build_contrast(config: DictConfig) -> Contrast | None:
    """What answers are decoded against; None where they are of what is shown alone."""
    contrast = config.stage.get("contrast")
    return None if contrast is None else cast(Contrast, instantiate(contrast))


def settings_of_data(
    stage_class: type[Stage], data: VideoDataModule, splits: Sequence[str]
) -> dict[str, Any]:
    """What a stage's constructor takes of the data, by name."""
    offered: dict[str, Callable[[], Any]] = {
        "tasks": lambda: data.tasks(splits),
        "tasks_with_options": lambda: data.tasks_with_options(splits),
        "classes": lambda: data.classes,
        "sets": lambda: data.sets,
        "items": lambda: data.items("train") if "train" in splits else (),
        "truths": lambda: {split: data.truths(split) for split in splits if split in EVALUATED},
    }
    taken = settings_taken(stage_class)
    return {name: read() for name, read in offered.items() if name in taken}


def settings_taken(stage_class: type[Stage]) -> set[str]:
    """What a stage's constructor takes, by name; with **settings also what its bases take."""
    found: set[str] = set()
    for cls in filter(lambda cls: "__init__" in vars(cls), stage_class.__mro__):
        taken = signature(cls).parameters
        found |= taken.keys()
        if not any(setting.kind is setting.VAR_KEYWORD for setting in taken.values()):
            break
    return found


def require_settings_of(stage_class: type[Stage], given: DictConfig) -> None:
    """Refuse settings that a stage does not take, as of an experiment made for the other stage.

    Raises:
        ConfigError: naming them.
    """
    taken = settings_taken(stage_class)
    foreign = [key for key in map(str, given) if not key.startswith("_") and key not in taken]
    if foreign:
        raise ConfigError(
            f"stage {stage_class.__name__} takes no {', '.join(foreign)}: the experiment is made "
            f"for another stage; choose one of this stage, or leave out stage=… and these settings"
        )


def leave_mix(config: DictConfig) -> None:
    """Take out what an experiment says of its mix, where another set was laid over it.

    Groups are merged, so the sets of a mix and rules for them would stay beside the other set.
    """
    data, compare = config.data, config.stage.get("compare")
    if "sets" not in data or issubclass(get_class(data._target_), MixedDataModule):
        return
    with open_dict(config):
        sets = data.pop("sets")
        for key in ("weights", "temperature", "epoch_items"):
            data.pop(key, None)
        if isinstance(compare, DictConfig):
            config.stage.compare = {n: rule for n, rule in compare.items() if n not in sets}


def build_backbone(
    config: DictConfig, encoders: Mapping[str, nn.Module] | None = None
) -> VideoLanguageModel:
    """The model, with pretrained parts where `pretrained` names them, and those of `init.weights`.

    `encoders`, by the parts that they are, are taken instead of the config's, if given.

    Raises:
        NoMemoryError: if it needs more memory than is free.
    """
    with allocation_limit("the model of these settings"):
        parts = encoder_parts(config)
        encoders = encoders or {part: build_encoder(config, part) for part in parts}
        branches = {
            branch: instantiate(config.backbone[branch], encoder=encoders[part])
            for branch, part in (("vision", ENCODER), ("sound", SOUND_ENCODER))
            if part in encoders
        }
        backbone: VideoLanguageModel = instantiate(config.backbone, **branches)
    if config.pretrained is not None:
        take_pretrained(backbone, PretrainedFolder(config.pretrained))
    if config.init.weights is not None:
        # the encoders have their own already, since the feature cache needs them before all else
        others = [part for part in PARTS if part not in parts]
        WeightFile(config.init.weights).load(backbone, others)
    return backbone


def start_from_alignment(stage: Stage, path: str | Path) -> None:
    """Copy the weights of a stage-1 checkpoint into a stage-2 model.

    What stage 1 does not have (projector, LLM, fusion) keeps its weights, and the alignment may
    take another form; the rest must fit.

    Raises:
        CheckpointError: if the checkpoint is missing, unreadable, or of another architecture.
    """
    checkpoint = read_checkpoint(path)
    absent = load_trainable(
        stage,
        checkpoint["state_dict"],
        f"the stage-1 checkpoint {path}",
        may_differ=DIFFERS_BETWEEN_STAGES,
    )
    if not any(name.startswith("backbone.vision.projector.") for name in absent):
        raise CheckpointError(
            f"{path} is a checkpoint of stage 2; init.alignment takes one of stage 1. "
            "To go on with a run give resume=…, to test it use mmavlm.evaluate"
        )
    log.info("started from %s; %d parameters of stage 2 are not in it", path, len(absent))
