"""AdamW with linear warm-up and a cosine down: the recipe of both stages."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

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
    first epoch however short it was. Warm-up begins at `warmup_lr`, and the cosine ends at
    `min_lr`, at 0 where they are None.

    Raises:
        ConfigError: if a setting is no number or below 0, or warm-up begins, or the cosine ends,
            above the peak.
    """

    lr: float = 1e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 1000
    min_lr: float | None = None
    warmup_lr: float | None = None

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "warmup_steps", "min_lr", "warmup_lr"):
            value = getattr(self, name)
            if value is None and name.endswith("_lr"):
                continue
            if not isinstance(value, int | float) or not value >= 0:
                raise ConfigError(f"optimizer.{name} must be a number of at least 0, got {value!r}")
        for name in ("min_lr", "warmup_lr"):
            if (value := getattr(self, name) or 0) > self.lr:
                raise ConfigError(
                    f"optimizer.{name}={value} is above optimizer.lr={self.lr}, the peak; lower it"
                )

    def build(
        self, parameters: Iterable[tuple[str, nn.Parameter]], *, total_steps: int, epoch_steps: int
    ) -> tuple[torch.optim.AdamW, LambdaLR]:
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
        begin, end = (low / self.lr if low else 0.0 for low in (self.warmup_lr, self.min_lr))
        share = partial(share_of_peak, warmup=warmup, total=total_steps, begin=begin, end=end)
        return optimizer, LambdaLR(optimizer, share)

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


def share_of_peak(step: int, *, warmup: int, total: int, begin: float, end: float) -> float:
    """Which share of the peak rate a step has: from `begin` to 1 in a line, then a cosine to `end`.

    Where both are 0 it is that of transformers' `get_cosine_schedule_with_warmup`, bit for bit.
    """
    if step < warmup:
        return begin + (1.0 - begin) * (step / max(1, warmup))
    progress = (step - warmup) / max(1, total - warmup)
    return end + (1.0 - end) * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


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
