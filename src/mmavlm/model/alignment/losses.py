"""Contrastive losses, one equation each, over a batch of N videos and N texts.

All take `logits` (N,N) = v·tᵀ/τ of unit-norm features, videos in rows, the matching pairs on the
diagonal, and `equal` (N,N) bool, True where two texts of the batch are the same; and all return a
scalar. Forms that count equal texts as negatives do not look at `equal`.

Videos may have texts that are not true of them, as HACL's hallucinated captions (arXiv 2312.06968):
hard negatives, whose logits come as `false`. They are further columns of the video → text softmax,
never targets: log p_ij = s_ij − log(Σ_k exp s_ik + Σ_h exp f_ih), f = `false.film`. No text is
false of a text, so on the other side, text → video, the pair of a text and its own video competes
with the other videos and with its video's false texts: log q_ij = s_ji − log(Σ_k exp s_ki +
Σ_h exp g_ih), g = `false.text`. That is ours: in HACL false captions stand on the image's side, as
here with `false.text` None. A video without false texts has the loss that it has without them.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FalsePairs(NamedTuple):
    """Logits of N videos and false texts, −∞ where there is none.

    `film` (N,M) are further columns of video → text; `text` (N,H), those of a video's own false
    texts, further columns of text → video, None where that side has none.
    """

    film: Tensor
    text: Tensor | None = None


def info_nce(
    logits: Tensor, equal: Tensor | None = None, false: FalsePairs | None = None
) -> Tensor:
    """−(1/N) Σ_i log softmax_j(logits_ij)[i], video → text (MMA, semantic discriminative loss).

    With `false.text`, also −(1/N) Σ_i log q_ii over the videos i that have false texts.
    """
    film, text = _columns(false)
    loss = -_log_probs(logits, film).diagonal().mean()
    if text is not None:
        loss = loss - _mean_where_any(_log_probs(logits.T, text).diagonal(), text)
    return loss


def symmetric_info_nce(
    logits: Tensor,
    equal: Tensor | None = None,
    false: FalsePairs | None = None,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The mean of video → text and text → video InfoNCE (CLIP, figure 3).

    A share of `label_smoothing` of each target is spread evenly over the true texts, or videos, of
    the whole batch.
    """
    if false is None:
        pairs = torch.arange(len(logits), device=logits.device)
        loss = partial(F.cross_entropy, target=pairs, label_smoothing=label_smoothing)
        return (loss(logits) + loss(logits.T)) / 2
    sides = _log_probs(logits, false.film), _log_probs(logits.T, false.text)
    right = torch.stack([side.diagonal().mean() for side in sides]).mean()
    evenly = torch.stack([side.mean() for side in sides]).mean()
    return -(1 - label_smoothing) * right - label_smoothing * evenly


def equal_texts_info_nce(logits: Tensor, equal: Tensor, false: FalsePairs | None = None) -> Tensor:
    """−(1/N) Σ_i (1/|P_i|) Σ_{j∈P_i} log softmax_j(logits_ij), P_i = {j : text j equals text i}.

    With few classes a batch holds many equal texts, which the paper's form pushes apart.
    Texts that are equal have equal features, so the least value is the mean of log |P_i|. With
    `false.text`, also −(1/N) Σ_i (1/|P_i|) Σ_{j∈P_i} log q_ij over the videos i that have false
    texts.
    """
    film, text = _columns(false)
    target = equal.to(logits.dtype)
    target = target / target.sum(dim=1, keepdim=True)
    loss = -(target * _log_probs(logits, film)).sum(dim=1).mean()
    if text is not None:
        loss = loss - _mean_where_any((target * _log_probs(logits.T, text)).sum(dim=1), text)
    return loss


def sigmoid_loss(
    logits: Tensor, equal: Tensor, bias: Tensor | float, false: FalsePairs | None = None
) -> Tensor:
    """−(1/N) Σ_i Σ_j log σ(z_ij·(logits_ij + bias)), z = +1 for equal texts, −1 for others.

    SigLIP, equation 1, where z is +1 on the diagonal alone; the same where no texts are equal.
    Every false text of `false.film` is a pair more, of z = −1; pairs have no direction, so
    `false.text` would repeat them and is not read.
    """
    sign = 2 * equal.to(logits.dtype) - 1
    loss = -F.logsigmoid(sign * (logits + bias)).sum(dim=1).mean()
    return loss if false is None else loss + F.softplus(false.film + bias).sum(dim=1).mean()


class SigmoidLoss(nn.Module):
    """`sigmoid_loss` with a learned bias, −10 at first so that the many negatives cost nothing."""

    def __init__(self, bias: float = -10.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((1,), bias))  # FSDP shards no scalars

    def forward(self, logits: Tensor, equal: Tensor, false: FalsePairs | None = None) -> Tensor:
        """The loss of `logits` (N,N), a scalar."""
        return sigmoid_loss(logits, equal, self.bias, false)


def _columns(false: FalsePairs | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if false is None else false


def _log_probs(logits: Tensor, false: Tensor | None) -> Tensor:
    """The log-probabilities (N,N) of each row, `false` (N,M) being further columns of it."""
    if false is None:
        return logits.log_softmax(dim=1)
    return torch.cat([logits, false], dim=1).log_softmax(dim=1)[:, : logits.shape[1]]


def _mean_where_any(rows: Tensor, false: Tensor) -> Tensor:
    """The mean of `rows` (N,), those without a false text counted as 0."""
    return rows.where((false > -torch.inf).any(dim=1), 0).mean()
