"""A model as a folder: trained weights, settings, tokenizers, a model card."""

from __future__ import annotations

import json
import logging
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError

from mmavlm.core import checksums
from mmavlm.core.errors import ConfigError, first_line
from mmavlm.core.settings import names
from mmavlm.model.llm import chat_template
from mmavlm.model.text import PromptTokenizer, load_tokenizer
from mmavlm.run.build import build_backbone
from mmavlm.run.model_card import model_card
from mmavlm.weights.checkpoint import RUN_KEY, read_checkpoint, trainable_state
from mmavlm.weights.exported import (
    CONFIG,
    FROZEN,
    GROUPS,
    INSIDE_KEY,
    MODEL_TYPE,
    OF_STAGES,
    QFORMER_TOKENIZER,
    TRAINED,
    small_checksums,
)
from mmavlm.weights.seal import sealed
from mmavlm.weights.trust import OF_THE_MODEL, Fence
from mmavlm.weights.weight_files import WeightFile, write_weights

log = logging.getLogger(__name__)

# Settings of a run that say nothing of its model, or name places on the machine it ran on.
LEFT_OUT = {
    "data.root", "data.cache", "data.index", "paths", "logger", "callbacks", "trainer", "hydra",
    "resume", "resume_accept", "checkpoint", "prepare", "init", "to", "license",
}  # fmt: skip

OF_A_SET = re.compile(r"^data\.sets\.[^.]+\.")


def export_model(config: DictConfig, overrides: Sequence[str]) -> None:
    """Write weights, config, tokenizers and a model card to a folder, all of it or nothing.

    `overrides` are the command line, which describes a model that was not trained.

    Raises:
        ConfigError: if the folder cannot be written, or the checkpoint is an exported model.
        CheckpointError: if the checkpoint cannot be read, or its settings say more than they may.
    """
    to = Path(config.to)
    checkpoint = untrained(config, overrides) if config.checkpoint is None else trained(config)
    partial = to.with_name(f".{to.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        write(checkpoint, partial, config.license)
        partial.rename(to)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"to={to} cannot be written ({first_line(error)}); make room, or name another place"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(file.stat().st_size for file in to.rglob("*") if file.is_file())
    log.info("exported to %s: %.1f MB", to, size / 1e6)


def trained(config: DictConfig) -> dict[str, Any]:
    """The checkpoint to export, whose settings are read to find tokenizers and frozen weights."""
    checkpoint = read_checkpoint(config.checkpoint)
    if INSIDE_KEY in checkpoint:
        raise ConfigError(f"checkpoint={config.checkpoint} is an exported model; copy the folder")
    run = checkpoint[RUN_KEY]
    fence = Fence.around(run, f"checkpoint {config.checkpoint}", names(config.trust))
    for group in (*OF_THE_MODEL, "init"):
        fence.check(group, run["config"].get(group))
    return checkpoint


def untrained(config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """The checkpoint of a run that has not begun: the model of the settings at hand."""
    # the other groups may lack what only a training run must have, such as data.root
    groups = {group: config[group] for group in (*GROUPS, "init")}
    plain = {
        group: OmegaConf.to_container(told, resolve=True) if OmegaConf.is_config(told) else told
        for group, told in groups.items()
    }
    stage = str(config.stage._target_).split(".")[-1]
    state = trainable_state(build_backbone(config))
    return {
        "state_dict": {f"{OF_STAGES}{name}": tensor for name, tensor in state.items()},
        RUN_KEY: {"stage": stage, "config": plain, "overrides": list(overrides)},
    }


def write(checkpoint: Mapping[str, Any], to: Path, license_name: str | None) -> None:
    """Fill the folder `to` with what a checkpoint holds."""
    run = checkpoint[RUN_KEY]
    state = {n.removeprefix(OF_STAGES): t for n, t in checkpoint["state_dict"].items()}
    write_weights(state, to / TRAINED)
    frozen = frozen_weights(run["config"], set(state))
    if frozen:
        write_weights(frozen, to / FROZEN)
    config = {group: run["config"][group] for group in GROUPS}
    told = sealed({**run, "config": config, "overrides": of_the_model(run["overrides"])})
    write_tokenizers(config, to)
    whole = {
        "model_type": MODEL_TYPE,
        "architectures": ["VideoLanguageModel"],
        f"{MODEL_TYPE}_version": version(MODEL_TYPE),
        "run": told,
        checksums.KEY: small_checksums(to, told),
    }
    (to / CONFIG).write_text(json.dumps(whole, indent=2), encoding="utf-8")
    card = model_card(told, list(state.values()), license_name)
    (to / "README.md").write_text(card, encoding="utf-8")


def frozen_weights(config: Mapping[str, Any], trained: set[str]) -> dict[str, Any]:
    """What `init.weights` brought and training left as it was, by name."""
    path = config["init"].get("weights")
    if path is None:
        return {}
    file = WeightFile(path)
    return {name: t for name, t in file.state().items() if name not in trained}


def of_the_model(overrides: Sequence[str]) -> list[str]:
    """The overrides of a run less those of `LEFT_OUT`."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    # what is left out of a set is left out of each set of a mix
    keys = [OF_A_SET.sub("data.", str(override.key_or_group)) for override in parsed]
    pairs = zip(keys, parsed, strict=True)
    return [str(o.input_line) for k, o in pairs if not {k, k.split(".")[0]} & LEFT_OUT]


def write_tokenizers(config: Mapping[str, Any], to: Path) -> None:
    """The LLM's tokenizer beside the weights, the Q-Former's in a folder of its own."""
    prompts = instantiate(config["prompt_tokenizer"])
    if isinstance(prompts, PromptTokenizer):
        prompts.tokenizer.save_pretrained(to / QFORMER_TOKENIZER)
    llm = config["backbone"]["llm"]
    if llm is not None:
        tokenizer = load_tokenizer(llm.get("tokenizer") or llm.get("pretrained"))
        if (chat := chat_template(llm.get("chat_template"), tokenizer)) is not None:
            tokenizer.chat_template = chat
        tokenizer.save_pretrained(to)
