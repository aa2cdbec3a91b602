"""One look at a frame, through all layers of the Q-Former.

Shapes: B films, N = K queries + prompt tokens, D width, S slots, P frame tokens, Dv their width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmavlm.model.few_queries import KeyValue
from mmavlm.model.qformer import QFormer, QFormerLayer
from mmavlm.model.temporal.state import MemoryQFormerState

if TYPE_CHECKING:
    from mmavlm.model.temporal.live import LiveState

Keys = tuple[KeyValue, KeyValue | None]  # of self-attention and of cross-attention
KeysOf = Callable[[int, QFormerLayer, Tensor], Keys]  # layer number, layer, its input (B,N,D)
Masks = tuple[Tensor | None, Tensor | None]  # of the keys of self-attention and cross-attention
# Query outputs (B,K,D); inputs of each layer (B,N,D); query tokens (B,K,D) behind cross-attention.
Attended = tuple[Tensor, list[Tensor], list[Tensor]]


def attend(
    qformer: QFormer,
    state: MemoryQFormerState | LiveState,
    keys_of: KeysOf,
    masks: Masks,
    layers: Sequence[int],
    *,
    through: Callable[..., Tensor],
) -> Attended:
    """Through all layers, `through` each of which a frame passes; see `Attended`.

    The last are those of the `layers` that have cross-attention.
    """
    num_queries = state.video_tokens.shape[1]
    hidden = qformer.embeddings.dropout(state.hidden)
    inputs, crossed = [], []
    for i, layer in enumerate(qformer.layers):
        inputs.append(hidden)
        keys, visual_keys = keys_of(i, layer, hidden)
        visual_bank = None if visual_keys is None else (visual_keys, masks[1])
        banks: tuple[Any, Any] = (keys, masks[0]), visual_bank
        if i in layers and visual_bank is not None:
            hidden, queries = layer.forward_and_look(hidden, num_queries, *banks)
            crossed.append(queries)
        else:
            hidden = through(layer, hidden, num_queries, *banks)
    return hidden[:, :num_queries], inputs, crossed


def projected_anew(
    state: MemoryQFormerState, past: tuple[Tensor, Tensor], visual_keys: Tensor
) -> tuple[KeysOf, Tensor]:
    """The keys of each layer, all of them projected at this frame, and the mask of the first.

    `past` is the query bank (B,S,layers·N,D) with its mask (B,S), `visual_keys` (B,V,Dv) what
    cross-attention reads.
    """
    positions = state.hidden.shape[1]
    tokens, filled = past
    key_mask = (filled[:, :, None] & state.mask[:, None, :]).flatten(1)

    def keys_of(i: int, layer: QFormerLayer, hidden: Tensor) -> Keys:
        banked = tokens[:, :, i * positions : (i + 1) * positions].flatten(1, 2)
        keys = torch.cat([banked.to(hidden.dtype), hidden], dim=1)
        return layer.project(keys, visual_keys)

    return keys_of, torch.cat([key_mask, state.mask], dim=1)


def with_current(bank: tuple[Tensor, Tensor], current: Tensor) -> tuple[Tensor, Tensor]:
    """Bank (B,S,P,Dv) with mask (B,S) ∥ frame (B,P,Dv) → keys (B,(S+1)·P,Dv), mask (B,(S+1)·P)."""
    tokens, mask = bank
    positions = current.shape[1]
    keys = torch.cat([tokens.flatten(1, 2).to(current.dtype), current], dim=1)
    mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return keys, mask.repeat_interleave(positions, dim=1)
