"""Embeddings of tokens that a tokenizer has beyond those a model was trained with."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from mmavlm.model.llm.layout import Model

log = logging.getLogger(__name__)


class GrownEmbedding(nn.Module):
    """A table of embeddings with `new_rows` behind it, which learn while the old ones may not."""

    def __init__(self, old: nn.Embedding, new: Tensor) -> None:
        super().__init__()
        self.old = old
        self.new_rows = nn.Embedding.from_pretrained(new, freeze=False)
        self.num_embeddings = old.num_embeddings + len(new)
        self.embedding_dim = old.embedding_dim

    @property
    def weight(self) -> Tensor:
        """All rows (V,Dl), for what reads the whole table; a copy."""
        return torch.cat([self.old.weight, self.new_rows.weight.to(self.old.weight.dtype)])

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (…) → embeddings (…,Dl)."""
        first = self.old.num_embeddings
        known = ids < first
        found = self.old(ids.where(known, 0))
        # Some models scale what they look up.
        scale = getattr(self.old, "embed_scale", 1.0)
        new = self.new_rows((ids - first).clamp(min=0)).to(found.dtype) * scale
        return torch.where(known[..., None], found, new)


class GrownHead(nn.Module):
    """The logits of a head, and behind them those of `new_rows`, biased if the head is."""

    def __init__(self, old: nn.Linear, new: nn.Parameter) -> None:
        super().__init__()
        self.old = old
        has_bias = old.bias is not None
        self.new_rows = nn.Linear(new.shape[1], len(new), bias=has_bias, device="meta")
        self.new_rows.weight = new
        if has_bias:
            self.new_rows.bias = nn.Parameter(_means(old.bias[:, None], len(new))[:, 0])
        self.out_features = old.out_features + len(new)

    def forward(self, hidden: Tensor) -> Tensor:
        """(…,Dl) → logits (…,V)."""
        new = self.new_rows(hidden.to(self.new_rows.weight.dtype))
        return torch.cat([self.old(hidden), new.to(hidden.dtype)], dim=-1)


def add_rows(model: Model, rows: int) -> None:
    """Give a model `rows` embeddings, if it has fewer, and as many logits.

    New ones begin at the mean of the old ones, learn in single precision, and are parameters of
    their own: a checkpoint holds them, and not the table, while the rest is frozen.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    missing = rows - embedding.num_embeddings
    if missing <= 0:
        return
    log.warning(
        "llm.resize_embeddings: %d tokens have no embedding in these weights; their rows begin at "
        "the mean of the others and have to be trained",
        missing,
    )
    grown = GrownEmbedding(embedding, _means(embedding.weight, missing))
    tied = head.weight is embedding.weight
    model.set_input_embeddings(grown)
    new = grown.new_rows.weight if tied else nn.Parameter(_means(head.weight, missing))
    model.set_output_embeddings(GrownHead(head, new))
    model.config.vocab_size = rows
    if hasattr(model, "_resize_final_logits_bias"):  # BART and its kin
        model._resize_final_logits_bias(rows)


def _means(weight: Tensor, times: int) -> Tensor:
    """The mean of the rows (V,D), so many times: (times,D)."""
    return weight.detach().float().mean(dim=0).repeat(times, 1)
