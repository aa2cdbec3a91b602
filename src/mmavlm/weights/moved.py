"""Where the parts of earlier versions are today, so that their files still load.

Checkpoints, exports and weight files name parts, settings and weights. Each reader brings these
names up to date once, before anything else looks at them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from mmavlm.weights.seal import is_own, sealed

Value = TypeVar("Value")

# Modules → where they are now; a package with all below it.
MODULES = {
    "alignment": "model.alignment",
    "backbone": "model.backbone",
    "encoders": "model.encoders",
    "fusion": "model.fusion",
    "llm": "model.llm",
    "memory": "model.memory",
    "qformer": "model.qformer",
    "temporal": "model.temporal",
    "text": "model.text",
}
# Parts of the backbone that are now parts of its branch for films.
OF_VISION = ("encoder", "prompt_tokenizer", "temporal", "fusion", "frame_positions", "projector")
# Settings of the backbone that are now settings of the group `vision`.
SETTINGS = {
    "max_num_frames": "max_num_frames",
    "position_init": "position_init",
    "visual_norm_eps": "norm_eps",
}
NORM = "visual_norm"
BRANCH = {"_target_": "mmavlm.model.branches.Branch", "_partial_": True}
_MODULE = re.compile(rf"\bmmavlm\.({'|'.join(MODULES)})(?=\.)")
_WEIGHT = re.compile(rf"^(backbone\.)?({'|'.join((NORM, *OF_VISION))})\.")
_SETTING = re.compile(rf"^([+~]*)backbone\.({'|'.join((*SETTINGS, *OF_VISION))})(?=[.=]|$)")


def weight_name(name: str) -> str:
    """The name that a weight of a model, or of a stage, has today."""

    def today(found: re.Match[str]) -> str:
        part = "norm" if found[2] == NORM else found[2]
        return f"{found[1] or ''}vision.{part}."

    return _WEIGHT.sub(today, name)


def weights(state: Mapping[str, Value]) -> dict[str, Value]:
    """A state by the names of today."""
    return {weight_name(name): value for name, value in state.items()}


def run_settings(run: Any) -> Any:
    """The settings of a run (`config` and `overrides`) as they are called today.

    A seal that was good for the settings as stored is made again for those returned.
    """
    if not isinstance(run, Mapping):
        return run
    today = {key: _in_todays_modules(value) for key, value in run.items()}
    if isinstance(today.get("config"), Mapping):
        today["config"] = _with_branch(today["config"])
    if isinstance(today.get("overrides"), list):
        today["overrides"] = [_override(override) for override in today["overrides"]]
    if today == run:
        return run
    return sealed(today) if is_own(run) else today


def _in_todays_modules(value: Any) -> Any:
    """A stored value in which every part has the module it is in today."""
    if isinstance(value, str):
        return _MODULE.sub(lambda found: f"mmavlm.{MODULES[found[1]]}", value)
    if isinstance(value, Mapping):
        return {key: _in_todays_modules(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_in_todays_modules(inner) for inner in value]
    return value


def _with_branch(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config whose backbone has its branch for films, where it had that branch's parts itself."""
    backbone = config.get("backbone")
    if not isinstance(backbone, Mapping) or "vision" in backbone or "encoder" not in backbone:
        return config
    moved = {**{part: part for part in OF_VISION}, **SETTINGS}
    vision = BRANCH | {moved[key]: value for key, value in backbone.items() if key in moved}
    rest = {key: value for key, value in backbone.items() if key not in moved}
    return {**config, "vision": vision, "backbone": {**rest, "vision": vision}}


def _override(override: Any) -> Any:
    if not isinstance(override, str):
        return override

    def today(found: re.Match[str]) -> str:
        if found[2] in SETTINGS:
            return f"{found[1]}vision.{SETTINGS[found[2]]}"
        return f"{found[1]}backbone.vision.{found[2]}"

    return _SETTING.sub(today, override)
