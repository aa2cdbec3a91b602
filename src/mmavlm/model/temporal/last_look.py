"""What the query tokens looked at, worked out afterwards from the state of the film alone.

The banks are compressed before a frame is added, not after. So the state after a frame still holds
all that was attended to at that frame, as it was: the visual bank the keys of cross-attention, the
query bank those of self-attention and, in its newest slot, the input of every layer. Attention
itself need not keep its weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmavlm.model.temporal.memory_qformer import MemoryQFormer, State


@torch.no_grad()
def last_look(temporal: MemoryQFormer, state: State) -> Tensor:
    """Cross-attention of the queries at each row's last frame: weights (B,C,K,S,P).

    C are the layers with cross-attention, S and P the slots and positions of the visual bank, over
    which the weights add up to 1; they are means over the heads. For a model in eval mode, and a
    state as `forward` leaves it, or after a step in which every row took a frame.
    """
    visual, query = state.visual_bank, state.query_bank
    batch, slots, patches, _ = visual.tokens.shape
    num_queries, positions = state.video_tokens.shape[1], state.hidden.shape[1]
    visual_tokens = visual.tokens.flatten(1, 2)
    visual_mask = (visual.counts > 0).flatten(1)

    filled = query.counts[:, :, 0] > 0
    key_mask = (filled[:, :, None] & state.mask[:, None]).flatten(1)
    number = torch.arange(filled.shape[1], device=filled.device)
    newest = (filled * number).argmax(dim=1)
    rows = torch.arange(batch, device=filled.device)

    looks = []
    for i, layer in enumerate(temporal.qformer.layers):
        if layer.crossattention is None:
            continue
        banked = query.tokens[:, :, i * positions : (i + 1) * positions]
        keys, visual_keys = layer.project(banked.flatten(1, 2), visual_tokens)
        assert visual_keys is not None  # this layer has cross-attention
        hidden = layer.attention(banked[rows, newest], keys, key_mask)[:, :num_queries]
        weights = layer.crossattention.weights(hidden, visual_keys[0], visual_mask)
        looks.append(weights.mean(dim=1).unflatten(-1, (slots, patches)))
    return torch.stack(looks, dim=1)
