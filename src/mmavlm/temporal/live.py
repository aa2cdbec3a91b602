"""The state of a film being watched without gradient: banks in place, keys and values beside them.

Merging commutes with projection: keys and values are affine in the banked tokens, and the weights
of a merge add up to 1. So each frame is projected once, and keys and values are merged as the
tokens are, instead of projecting the whole bank again at every frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmavlm.interfaces import MemoryState
from mmavlm.memory.slots import SlotBank
from mmavlm.qformer import KeyValue
from mmavlm.temporal.state import MemoryQFormerState


@dataclass(frozen=True)
class LiveState:
    """What is carried from frame to frame; the fields are those of `MemoryQFormerState`.

    The visual bank carries keys and values of every layer with cross-attention. Every layer has a
    query bank of its own, layer after layer in the rows of one: R = layers·B.
    """

    hidden: Tensor
    mask: Tensor
    visual: SlotBank
    query: SlotBank
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

    def copy(self) -> LiveState:
        """The same state with banks of its own, so that stepping on leaves this one as it is."""
        return replace(self, visual=self.visual.clone(), query=self.query.clone())

    def settled(self) -> MemoryQFormerState:
        """The same state as a value, its banks in the order of time."""
        return MemoryQFormerState(
            hidden=self.hidden,
            mask=self.mask,
            visual_bank=self.visual_bank,
            query_bank=self.query_bank,
            video_tokens=self.video_tokens.clone(),
        )

    def show(self, frame_tokens: Tensor, projected: Tensor, mask: Tensor) -> Tensor:
        """Bank a frame (B,P,Dv) and its keys and values (X,B,P,D); those of all slots (X,B,V,D)."""
        self.visual.make_room(mask)
        return self.visual.carry(projected).flatten(2, 3)

    def visual_mask(self) -> Tensor | None:
        """(B,V) True where there is something to attend to; None if there is everywhere."""
        mask = self.visual.mask()
        positions = self.visual.free.shape[1]
        return None if mask is None else mask.repeat_interleave(positions, dim=1)

    def bank_keys(self, layer: int, keys: KeyValue) -> tuple[Tensor, Tensor]:
        """Bank a layer's keys and values (B,N,D) of this frame; all of its past and these."""
        batch = len(self.hidden)
        rows = slice(layer * batch, (layer + 1) * batch)
        banked = self.query.carry(torch.stack(keys), rows).flatten(2, 3)
        return banked[0], banked[1]

    def key_mask(self) -> Tensor | None:
        """(B,S·N) True on real positions of filled slots; None if all of them are."""
        slots = self.query.mask()
        if slots is None:
            used = self.query.used
            return None if self.full_text else self.mask.repeat(1, used)
        return (slots[: len(self.mask), :, None] & self.mask[:, None]).flatten(1)

    def after(self, frame_tokens: Tensor, inputs: Sequence[Tensor], output: Tensor) -> LiveState:
        """Bank what the frame left behind: its tokens, the layers' inputs, the query outputs."""
        active = self.visual.active[:, None, None]
        self.visual.take(frame_tokens)
        self.query.take(torch.cat(list(inputs)))
        if self.visual.ragged:
            output = torch.where(active, output, self.video_tokens)
        return replace(self, video_tokens=output)
