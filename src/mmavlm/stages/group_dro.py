"""Group DRO: the groups that are answered worst count most (Sagawa et al., arXiv 1911.08731)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any

import lightning as L
import torch
from torch import Tensor, distributed

from mmavlm.core.batch import Batch
from mmavlm.core.errors import CheckpointError, ConfigError, DataError
from mmavlm.core.groups import Group, groups_of, require_several
from mmavlm.core.items import Item
from mmavlm.core.settings import at_least, names

SETTING = "stage.group_loss"


class GroupDRO(L.Callback):
    """A loss L = Σ_g q_g·L_g, whose weights q_g ∝ q_g·exp(η·(L_g + C/√n_g)) move at every step.

    L_g is the mean over a batch's rows of group g, on all ranks together (algorithm 1 of the paper,
    on batches); n_g is the number of training items of the group (section 3.3), `adjustment` C and
    `step_size` η. A group of which a batch has no row keeps its weight but for the common factor,
    and adds nothing. With η = 0 the loss is the plain mean of the groups'. `groups` are the keys of
    a group, as of `groups_of`. The weights are the same on all ranks, and part of the checkpoint.

    Raises:
        ConfigError: if a number is out of range, or there is no key.
    """

    def __init__(
        self,
        step_size: float = 0.01,
        adjustment: float = 0.0,
        groups: str | Sequence[str] = ("task",),
    ) -> None:
        at_least(SETTING, 0, step_size=step_size, adjustment=adjustment)
        self.step_size, self.adjustment = float(step_size), float(adjustment)
        self.keys = names(groups)
        if not self.keys:
            raise ConfigError(f"{SETTING}.groups is empty; give keys, such as [task]")
        self.groups: list[Group] = []
        self._group_of: dict[str, int] = {}  # of items, by their names
        self._margin = torch.zeros(0)  # C/√n_g
        self._log_weights = torch.zeros(0)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the groups of the training items before training.

        Raises:
            ConfigError: if there is no datamodule to ask, or one group alone.
            DataError: as of `take`.
        """
        if stage != "fit":
            return
        items = getattr(getattr(trainer, "datamodule", None), "items", None)
        if items is None:
            raise ConfigError(f"{SETTING} asks a datamodule for the groups of items; give one")
        self.take(items("train"))

    def take(self, items: Sequence[Item]) -> None:
        """Begin with equal weights for the groups of training items.

        Raises:
            ConfigError: if there is one group alone.
            DataError: if an item lacks a key, or two items of one name are of different groups.
        """
        found = groups_of(items, self.keys, SETTING)
        self.groups = sorted(set(found))
        require_several(self.groups, self.keys, SETTING)
        number = {group: n for n, group in enumerate(self.groups)}
        self._group_of = {}
        for item, group in zip(items, found, strict=True):
            if self._group_of.setdefault(item.item_id, number[group]) != number[group]:
                raise DataError(
                    f"two training items have the name {item.item_id!r}, but are of different "
                    f"groups for {SETTING}; give each an id of its own"
                )
        sizes = torch.tensor([number[group] for group in found]).bincount()
        self._margin = self.adjustment / sizes.sqrt()
        self._log_weights = torch.full((len(self.groups),), 1 / len(self.groups)).log()

    @property
    def weights(self) -> Tensor:
        """q, the weight of each of the `groups`; they add up to 1."""
        return self._log_weights.exp()

    def __call__(self, losses: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The loss `text` of the losses of rows, and `weight/<group>` of each; q moves first.

        `losses` (C,) are of the conversations that teach something; the others are of no group.
        The gradient is right as a mean over ranks.
        """
        taught = (any(turn.learned for turn in talk.turns) for talk in batch.conversations)
        rows = [self._group_of[name] for name in compress(batch.item_id, taught)]
        group = torch.tensor(rows, dtype=torch.int64, device=losses.device)
        own = losses.float()
        sums = own.new_zeros(len(self.groups)).index_add(0, group, own)
        counts = group.bincount(minlength=len(self.groups))
        totals, ranks = torch.stack([sums.detach(), counts.to(sums)]), 1
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(totals)
            ranks = distributed.get_world_size()
        seen, many = totals[1] > 0, totals[1].clamp(min=1)
        means = totals[0] / many
        step = self.step_size * torch.where(seen, means + self._margin.to(means), 0.0)
        self._log_weights = (self._log_weights.to(means) + step).log_softmax(0)
        weights = self.weights
        share = (weights * sums / many).sum() * ranks
        text = share + ((weights * means).sum() - share).detach()
        told = {
            f"weight/{', '.join(group)}": weight
            for group, weight in zip(self.groups, weights, strict=True)
        }
        return {"text": text, **told}

    def state_dict(self) -> dict[str, Any]:
        """The groups, and the logarithms of their weights."""
        return {"groups": [list(group) for group in self.groups], "log_weights": self._log_weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with stored weights.

        Raises:
            CheckpointError: if they are of other groups than the training items.
        """
        stored = [tuple(group) for group in state_dict["groups"]]
        if stored != self.groups:
            raise CheckpointError(
                f"the checkpoint has weights of the groups {stored}, but the training items are of "
                f"{self.groups}; train on the items it was trained on"
            )
        self._log_weights = state_dict["log_weights"]
