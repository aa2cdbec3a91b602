"""The state of a film being watched without gradient: banks in place, keys and values beside them.

Merging commutes with projection: keys and values are affine in the banked tokens, and the weights
of a merge add up to 1. So each frame is projected once, and keys and values are merged as the
tokens are, instead of projecting the whole bank again at every frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from mmavlm.core.interfaces import MemoryState
from mmavlm.model.few_queries import fits
from mmavlm.model.memory.carried import Carried
from mmavlm.model.memory.slots import Move, SlotBank, SlotRule
from mmavlm.model.qformer import QFormer
from mmavlm.model.temporal.state import MemoryQFormerState

# Keys and values of so many bytes stay in a processor's cache while many frames attend to them.
CACHED_BYTES = 2**22


@dataclass(frozen=True)
class LiveState:
    """What is carried from frame to frame; the fields are those of `MemoryQFormerState`.

    The visual bank carries keys and values of every layer with cross-attention, two a layer. Every
    layer has a query bank of its own, layer after layer in the rows of one, R = layers·B, which
    carries keys and values of its self-attention.
    """

    hidden: Tensor
    mask: Tensor
    visual: SlotBank
    visual_keys: Sequence[Sequence[Carried]]  # of each layer, at each stretch of positions
    query: SlotBank
    query_keys: Carried
    video_tokens: Tensor
    full_text: bool  # no prompt of the batch is padded

    @property
    def visual_bank(self) -> MemoryState:
        """The bank of frame tokens in the order of time, (B,S,P,Dv)."""
        return self.visual.state()

    @property
    def query_bank(self) -> MemoryState:
        """The bank of layer inputs in the order of time, (B,S,layers·N,D)."""
        state, batch = self.query.state(), len(self.hidden)
        tokens = state.tokens.unflatten(0, (-1, batch)).permute(1, 2, 0, 3, 4).flatten(2, 3)
        counts = state.counts.unflatten(0, (-1, batch)).permute(1, 2, 0, 3).flatten(2, 3)
        return MemoryState(tokens, counts, state.seen[:batch])

    def rows(self, layer: int) -> slice:
        """The rows of a layer in the query bank."""
        return slice(layer * len(self.hidden), (layer + 1) * len(self.hidden))

    def stretches(self) -> list[slice]:
        """The stretches of positions at which keys and values lie together."""
        ends = [0, *accumulate(kept.values.shape[2] for kept in self.visual_keys[0])]
        return [slice(first, stop) for first, stop in pairwise(ends)]

    def copy(self) -> LiveState:
        """The same state with banks of its own, so that stepping on leaves this one as it is.

        All positions are then one stretch.
        """
        return replace(
            self,
            visual=self.visual.clone(),
            visual_keys=[[Carried.joined(kept)] for kept in self.visual_keys],
            query=self.query.clone(),
            query_keys=self.query_keys.clone(),
        )

    def settled(self) -> MemoryQFormerState:
        """The same state as a value, its banks in the order of time."""
        return MemoryQFormerState(
            hidden=self.hidden,
            mask=self.mask,
            visual_bank=self.visual_bank,
            query_bank=self.query_bank,
            video_tokens=self.video_tokens.clone(),
        )

    def visual_mask(self, move: Move) -> Tensor | None:
        """(B,V) True where there is something to attend to; None if there is everywhere."""
        mask = move.mask()
        return None if mask is None else mask.repeat_interleave(move.free.shape[1], dim=1)

    def key_mask(self, move: Move) -> Tensor | None:
        """(B,S·N) True on real positions of filled slots; None if all of them are."""
        slots = move.mask()
        if slots is None:
            return None if self.full_text else self.mask.repeat(1, move.used)
        return (slots[:, :, None] & self.mask[:, None]).flatten(1)

    def seen(self, active: Tensor, output: Tensor) -> LiveState:
        """The state with query outputs (B,K,D) of the rows that are `active` (B,)."""
        if self.visual.ragged:
            output = torch.where(active[:, None, None], output, self.video_tokens)
        return replace(self, video_tokens=output)


def live(
    state: MemoryQFormerState,
    qformer: QFormer,
    rules: Sequence[SlotRule],
    frame_tokens: Tensor,
    *,
    ragged: bool,
    at_most: int | None = None,
    in_stretches: bool = False,
) -> LiveState:
    """`state`, before its first frame, with banks in place for frames like `frame_tokens` (B,P,Dv).

    `rules` are those of the visual and the query bank, `at_most` the number of frames to come.
    `in_stretches` says that many frames attend to them at once.
    """
    layers = qformer.layers
    layer_inputs = state.hidden.repeat(len(layers), 1, 1)
    visual, query = (
        SlotBank(rule, like, at_most=at_most, ragged=ragged)
        for rule, like in zip(rules, (frame_tokens, layer_inputs), strict=True)
    )
    looks = sum(layer.crossattention is not None for layer in layers)
    dtype = _key_dtype(layers[0].attention.attention.key.weight)
    heads = layers[0].attention.heads

    def carried(bank: SlotBank, positions: int) -> Carried:
        shape = (*bank.tokens.shape[:2], positions, 2, heads, qformer.width // heads)
        return Carried(frame_tokens.new_zeros(shape, dtype=dtype))

    positions = visual.tokens.shape[2]
    at_once = positions
    if in_stretches and fits(frame_tokens.device, dtype):
        at_once = CACHED_BYTES // (2 * visual.room * qformer.width * dtype.itemsize)
    number = -(-positions // max(1, at_once))
    sizes = [len(part) for part in torch.arange(positions).tensor_split(number)]

    return LiveState(
        hidden=state.hidden,
        mask=state.mask,
        visual=visual,
        visual_keys=[[carried(visual, size) for size in sizes] for _ in range(looks)],
        query=query,
        query_keys=carried(query, query.tokens.shape[2]),
        video_tokens=state.video_tokens,
        full_text=bool(state.mask.all()),
    )


def _key_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of what a linear layer with this weight gives."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
