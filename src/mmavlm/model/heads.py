"""Heads that score frames from the hidden states of the language model (MMDuet, section 2).

Shapes: N frames, H width of the hidden states, S heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmavlm.core.errors import ConfigError
from mmavlm.core.streams import IGNORED


class FrameHeads(nn.Module):
    """For each name a linear layer of two classes on a frame's last hidden state.

    A score is the probability of class 1, from a layer's margin at the head's `temperature` (S)
    and with its `shift` (S). These are no weights: they are 1 and 0 until they are fitted to frames
    that nothing was learned from (see `metrics.duet.calibration`), and the loss knows none of them.

    Raises:
        ConfigError: if there is no name, or one twice.
    """

    fitted = ("temperature", "shift")  # buffers that checkpoints keep beside what is trained
    temperature: Tensor
    shift: Tensor

    def __init__(self, names: Sequence[str], width: int) -> None:
        super().__init__()
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"heads.names is {list(names)}; give each head a name of its own")
        self.names = tuple(names)
        self.layers = nn.ModuleDict({name: nn.Linear(width, 2, bias=False) for name in names})
        self.register_buffer("temperature", torch.ones(len(names)))
        self.register_buffer("shift", torch.zeros(len(names)))

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states (N,H) → logits (N,S,2)."""
        weight = torch.stack([*self.layers.parameters()])  # (S,2,H)
        return torch.einsum("nh,sch->nsc", hidden.to(weight.dtype), weight)

    def margins(self, hidden: Tensor) -> Tensor:
        """Hidden states (N,H) → the logit of class 1 less that of class 0, (N,S)."""
        zero, one = self(hidden).float().unbind(dim=-1)
        return one - zero

    def probabilities(self, margins: Tensor, name: str | None = None) -> Tensor:
        """Margins (…,S), or (…) of one head, → probabilities of class 1; their order stays."""
        heads = slice(None) if name is None else self.names.index(name)
        return (margins / self.temperature[heads].float() + self.shift[heads].float()).sigmoid()

    def scores(self, hidden: Tensor) -> Tensor:
        """Hidden states (N,H) → the probability (N,S) that a head says 1 of a frame."""
        return self.probabilities(self.margins(hidden))

    def calibrate(self, name: str, temperature: float, shift: float) -> None:
        """Let the scores of a head be those at this temperature and with this shift."""
        head = self.names.index(name)
        self.temperature[head], self.shift[head] = temperature, shift

    def loss(self, hidden: Tensor, labels: Tensor, *, balanced: bool = False) -> Tensor:
        """Mean cross-entropy over all labels (N,S) of frames and heads that are not `IGNORED`.

        As published all heads have one mean; `balanced` gives both classes of each head the same
        weight. Without any label it is 0, with a gradient of 0.
        """
        return self.weighted_loss(hidden, labels, label_weights(labels, balanced=balanced))

    def weighted_loss(self, hidden: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """The cross-entropies of labels (N,S), summed with these weights (N,S)."""
        logits = self(hidden).float()
        loss = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED
        )
        return (loss.view_as(labels) * weights).sum()


def label_weights(labels: Tensor, *, balanced: bool) -> Tensor:
    """How much each label (N,S) weighs in the loss: they add up to 1, `IGNORED` ones have 0."""
    known = labels != IGNORED
    weights = known.float()
    if balanced:
        weights = weights * _class_weights(labels, known)
    return weights / weights.sum().clamp(min=1e-6)


def label_tensor(
    names: Sequence[str], labels: Sequence[Mapping[str, int]], device: torch.device
) -> Tensor:
    """Labels (N,S) of frames, each given by head; `IGNORED` where a head has none."""
    rows = [[frame.get(name, IGNORED) for name in names] for frame in labels]
    return torch.tensor(rows, dtype=torch.int64).view(-1, len(names)).to(device)


def _class_weights(labels: Tensor, known: Tensor) -> Tensor:
    """Weights (N,S) with which both classes of a head weigh the same, and all of them as before."""
    total = known.sum(dim=0)
    weights = torch.zeros(labels.shape, device=labels.device)
    for value in (0, 1):
        one = labels == value
        count = one.sum(dim=0)
        both = (count > 0) & (count < total)
        share = torch.where(both, total / (2 * count.clamp(min=1)), torch.ones_like(total).float())
        weights = weights + one * share
    return weights
