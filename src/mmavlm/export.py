"""Export a model: `python -m mmavlm.export checkpoint=… to=folder`, for `hub.from_pretrained`.

In place of a checkpoint there may be settings with `init.weights`, such as a converted MA-LMM.
"""

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

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError

from mmavlm import checksums
from mmavlm.cli import run_command
from mmavlm.errors import ConfigError
from mmavlm.llm import chat_template
from mmavlm.model_card import model_card
from mmavlm.run import build_backbone
from mmavlm.stages.checkpoint import RUN_KEY, read_checkpoint, trainable_state
from mmavlm.stages.exported import (
    CONFIG,
    FROZEN,
    GROUPS,
    MODEL_TYPE,
    OF_STAGES,
    QFORMER_TOKENIZER,
    TRAINED,
    small_checksums,
)
from mmavlm.text import PromptTokenizer, load_tokenizer
from mmavlm.weight_files import WeightFile, write_weights
from mmavlm.weights import first_line

log = logging.getLogger(__name__)

# Settings of a run that say nothing of its model, or name places on the machine it ran on.
LEFT_OUT = {
    "data.root", "data.cache", "data.index", "paths", "logger", "callbacks", "trainer", "hydra",
    "resume", "resume_accept", "checkpoint", "prepare", "init", "to", "license",
}  # fmt: skip

OF_A_SET = re.compile(r"^data\.sets\.[^.]+\.")


def export(config: DictConfig) -> None:
    """Write weights, config, tokenizers and a model card to a folder, all of it or nothing."""
    to = Path(config.to)
    if to.exists():
        raise ConfigError(f"to={to} exists already; name a folder that is to be made")
    checkpoint = (
        untrained(config) if config.checkpoint is None else read_checkpoint(config.checkpoint)
    )
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


def untrained(config: DictConfig) -> dict[str, Any]:
    """The checkpoint of a run that has not begun: the model of the settings at hand.

    Raises:
        ConfigError: if no file of weights is given either.
    """
    if config.init.weights is None:
        raise ConfigError(
            "there is nothing to export; give checkpoint=outputs/<run>/checkpoints/best.ckpt, or "
            "init.weights=… with the settings of its model"
        )
    # the other groups may lack what only a training run must have, such as data.root
    groups = {group: config[group] for group in (*GROUPS, "init")}
    plain = {
        group: OmegaConf.to_container(told, resolve=True) if OmegaConf.is_config(told) else told
        for group, told in groups.items()
    }
    stage = str(config.stage._target_).split(".")[-1]
    overrides = list(HydraConfig.get().overrides.task)
    state = trainable_state(build_backbone(config))
    return {
        "state_dict": {f"{OF_STAGES}{name}": tensor for name, tensor in state.items()},
        RUN_KEY: {"stage": stage, "config": plain, "overrides": overrides},
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
    told = {**run, "config": config, "overrides": of_the_model(run["overrides"])}
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


def main() -> None:
    """Entry point of `mmavlm-export`."""
    run_command(export, "export")


if __name__ == "__main__":
    main()
