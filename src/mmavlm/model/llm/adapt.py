"""Optional ways to hold or train a large model: LoRA through peft, 8 and 4 bit."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import BitsAndBytesConfig

from mmavlm.core.errors import ConfigError
from mmavlm.core.extras import needs_extra
from mmavlm.model.llm.layout import Model

Quantization = Literal["8bit", "4bit"]


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters (LoRA, section 4.1): scaled by `alpha`/`rank`.

    `target_modules` None takes those peft names for the architecture.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05
    target_modules: Sequence[str] | None = None


def add_lora(model: Model, settings: LoraSettings) -> None:
    """Put adapters into a frozen model; they alone learn, in single precision.

    Raises:
        ConfigError: if peft is not installed, or has no place for adapters in this model.
    """
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(needs_extra("llm.lora", "peft", "lora"))
    from peft import LoraConfig

    targets = settings.target_modules
    try:
        model.add_adapter(
            LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules=None if targets is None else list(targets),
            )
        )
    except ValueError as error:
        raise ConfigError(
            f"peft cannot adapt {type(model).__name__} with {settings} ({error}); set "
            "llm.lora.target_modules to names of its linear layers"
        ) from error
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def quantization_config(kind: Quantization | None, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """How bitsandbytes is to hold the weights, computing in `dtype`.

    Raises:
        ConfigError: on an unknown kind, or if bitsandbytes or accelerate is not installed.
    """
    if kind is None:
        return None
    if kind not in ("8bit", "4bit"):
        raise ConfigError(f"llm.quantization is {kind!r}; choose null, '8bit' or '4bit'")
    if any(importlib.util.find_spec(name) is None for name in ("bitsandbytes", "accelerate")):
        packages = "bitsandbytes and accelerate"
        raise ConfigError(needs_extra(f"llm.quantization={kind}", packages, "quant"))
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
