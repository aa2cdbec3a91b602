"""Contrastive losses, one equation each, over a batch of N videos and N texts.

All take `logits` (N,N) = v·tᵀ/τ of unit-norm features, videos in rows, the matching pairs on the
diagonal, and `equal` (N,N) bool, True where two texts of the batch are the same; and all return a
scalar. Forms that count equal texts as negatives do not look at `equal`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def info_nce(logits: Tensor, equal: Tensor | None = None) -> Tensor:
    """−(1/N) Σ_i log softmax_j(logits_ij)[i], video → text (MMA, semantic discriminative loss)."""
    return -logits.log_softmax(dim=1).diagonal().mean()


def symmetric_info_nce(
    logits: Tensor, equal: Tensor | None = None, *, label_smoothing: float = 0.0
) -> Tensor:
    """The mean of video → text and text → video InfoNCE (CLIP, figure 3).

    A share of `label_smoothing` of each target is spread evenly over the whole batch.
    """
    pairs = torch.arange(len(logits), device=logits.device)
    loss = partial(F.cross_entropy, target=pairs, label_smoothing=label_smoothing)
    return (loss(logits) + loss(logits.T)) / 2


def equal_texts_info_nce(logits: Tensor, equal: Tensor) -> Tensor:
    """−(1/N) Σ_i (1/|P_i|) Σ_{j∈P_i} log softmax_j(logits_ij), P_i = {j : text j equals text i}.

    With few classes a batch holds many equal texts, which the paper's form pushes apart.
    Texts that are equal have equal features, so the least value is the mean of log |P_i|.
    """
    target = equal.to(logits.dtype)
    target = target / target.sum(dim=1, keepdim=True)
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def sigmoid_loss(logits: Tensor, equal: Tensor, bias: Tensor | float) -> Tensor:
    """−(1/N) Σ_i Σ_j log σ(z_ij·(logits_ij + bias)), z = +1 for equal texts, −1 for others.

    SigLIP, equation 1, where z is +1 on the diagonal alone; the same where no texts are equal.
    """
    sign = 2 * equal.to(logits.dtype) - 1
    return -F.logsigmoid(sign * (logits + bias)).sum(dim=1).mean()


class SigmoidLoss(nn.Module):
    """`sigmoid_loss` with a learned bias, −10 at first so that the many negatives cost nothing."""

    def __init__(self, bias: float = -10.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((1,), bias))  # FSDP shards no scalars

    def forward(self, logits: Tensor, equal: Tensor) -> Tensor:
        """The loss of `logits` (N,N), a scalar."""
        return sigmoid_loss(logits, equal, self.bias)
