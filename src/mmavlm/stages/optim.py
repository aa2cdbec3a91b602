"""AdamW with linear warm-up and a cosine to zero: the recipe of both stages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from mmavlm.core.errors import ConfigError

# Moments are stored by number alone, so that the order is a part of the format.
STORED_ORDER = (
    "backbone.vision.encoder.",
    "backbone.vision.norm.",
    "backbone.vision.frame_positions.",
    "backbone.vision.temporal.",
    "backbone.alignment.",
    "backbone.vision.fusion.",
    "backbone.llm.",
    "backbone.vision.projector.",
)


@dataclass(frozen=True)
class OptimizerRecipe:
    """Peak learning rate, decoupled weight decay, Adam's betas, warm-up in optimizer steps.

    `warmup_steps` is cut to one epoch, as in the published runs, whose warm-up ended with the
    first epoch however short it was.

    Raises:
        ConfigError: if a setting is no number, or below 0.
    """

    lr: float = 1e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 1000

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "warmup_steps"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value >= 0:
                raise ConfigError(f"optimizer.{name} must be a number of at least 0, got {value!r}")

    def build(
        self, parameters: Iterable[tuple[str, nn.Parameter]], *, total_steps: int, epoch_steps: int
    ) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
        """The optimizer over the trainable ones of named `parameters`, and its schedule a step."""
        named = in_stored_order(parameters)
        # a CPU takes a quarter of the time; on a GPU it would exclude clipping in float16
        fused = all(parameter.device.type == "cpu" for _, parameter in named)
        optimizer = torch.optim.AdamW(
            parameter_groups(named, self.weight_decay),
            lr=self.lr,
            betas=(self.betas[0], self.betas[1]),
            fused=fused or None,
        )
        warmup = min(self.warmup_steps, epoch_steps)
        return optimizer, get_cosine_schedule_with_warmup(optimizer, warmup, total_steps)

    def lay_over(self, optimizer: dict[str, Any], schedule: dict[str, Any]) -> None:
        """Put this recipe's numbers in place of those in stored states, which torch would take.

        The place in the schedule stays. Equal numbers change nothing, bit for bit.
        """
        groups = optimizer["param_groups"]
        for group, base in zip(groups, schedule["base_lrs"], strict=True):
            if base != self.lr:
                group["lr"] = self.lr * (group["lr"] / base if base else 1.0)
                group["initial_lr"] = self.lr
            group["betas"] = tuple(self.betas)
        if len(groups) > 1 or groups[0]["weight_decay"]:  # vectors alone do not decay
            groups[0]["weight_decay"] = self.weight_decay
        schedule["base_lrs"] = [self.lr] * len(groups)


def in_stored_order(
    parameters: Iterable[tuple[str, nn.Parameter]],
) -> list[tuple[str, nn.Parameter]]:
    """Named parameters in the order in which checkpoints store what the optimizer knows of them."""

    def place(named: tuple[str, nn.Parameter]) -> int:
        found = (i for i, part in enumerate(STORED_ORDER) if named[0].startswith(part))
        return next(found, len(STORED_ORDER))

    return sorted(parameters, key=place)


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float
) -> list[dict[str, object]]:
    """Two groups: matrices decay; biases, norms and other vectors do not."""
    trainable = [parameter for _, parameter in parameters if parameter.requires_grad]
    decay = [p for p in trainable if p.ndim >= 2]
    keep = [p for p in trainable if p.ndim < 2]
    groups = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": keep, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
