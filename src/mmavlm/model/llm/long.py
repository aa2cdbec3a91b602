"""Rows longer than a language model was trained with: rotary positions, and kinds of attention."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from mmavlm.core.errors import ConfigError
from mmavlm.core.settings import at_least

KINDS = ("eager", "sdpa", "flash_attention_2")


def rescaled(config: Any, scaling: Mapping[str, Any] | None, where: str) -> Any:
    """The configuration of a model whose rotary positions are scaled; the same for None.

    `scaling` is as transformers has it: a `rope_type` such as linear, and a `factor`.

    Raises:
        ConfigError: if the positions are not rotary, or it is none that transformers knows.
    """
    if scaling is None:
        return config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    settings = dict(scaling)
    kind = settings["rope_type"] = settings.pop("type", settings.get("rope_type"))
    if kind not in ROPE_INIT_FUNCTIONS:
        raise ConfigError(
            f"llm.rope_scaling has the rope_type {kind!r}; choose one of "
            f"{', '.join(ROPE_INIT_FUNCTIONS)}, such as {{rope_type: linear, factor: 16}}"
        )
    at_least("llm.rope_scaling", 1, factor=settings.get("factor"))
    rope = getattr(config, "rope_parameters", None)
    if not isinstance(rope, dict) or "rope_theta" not in rope:
        raise ConfigError(
            f"llm.rope_scaling scales rotary positions, and {where}, a model of type "
            f"{config.model_type!r}, has none that transformers scales; set it to null"
        )
    config = deepcopy(config)
    config.rope_parameters = {**rope, **settings}
    return config


def attention_setting(kind: str | None) -> dict[str, str]:
    """The setting of transformers for a kind of attention; None leaves the choice to it.

    Raises:
        ConfigError: if there is no such kind, or its package is not installed.
    """
    if kind is None:
        return {}
    if kind not in KINDS:
        raise ConfigError(f"llm.attention is {kind!r}; choose one of {', '.join(KINDS)}")
    if kind == "flash_attention_2":
        from transformers.utils import is_flash_attn_2_available

        if not is_flash_attn_2_available():
            raise ConfigError(
                "llm.attention=flash_attention_2 needs the package flash-attn and a GPU that it "
                "knows, and this machine lacks one of them; install flash-attn, or choose sdpa, "
                "which needs no more memory"
            )
    return {"attn_implementation": kind}
