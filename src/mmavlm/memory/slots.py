"""A bank at work: slots stay where they are and are written over, so no frame copies the bank.

Attention does not see the order of its keys. So the order of the slots is kept beside them, one
table a position; two slots are merged into the place of one of them and the next entry goes into
the place of the other. Merging changes at most two similarities and the newest entry adds one, so
they are kept rather than computed anew.

Shapes: R rows, C slots, N token positions, D width, X things carried along, of width Dc.
"""

from __future__ import annotations

import copy
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from mmavlm.interfaces import MemoryState
from mmavlm.memory.base import at_least_single

FIRST_SLOTS = 16  # of a bank that grows


@runtime_checkable
class SlotRule(Protocol):
    """What a strategy must tell so that its bank can be kept in place.

    It holds at most `slots` slots (None: as many as come). Beyond that two neighbours are merged,
    weighted by the frames they hold, or the oldest is forgotten. `compares` says whether that
    depends on similarities; where it does not, what `pair` is given means nothing.
    """

    @property
    def slots(self) -> int | None:
        """How many slots there are at most."""

    @property
    def compares(self) -> bool:
        """Whether similarities are to be kept."""

    def pair(self, similarity: Tensor) -> Tensor | None:
        """The older one of the neighbours to merge (R,N), or None to forget the oldest.

        Takes the cosine similarities of neighbours, (R,C−1,N).
        """


class SlotBank:
    """The slots of R rows, and what is carried along with them, such as keys and values.

    A frame is taken in three moves: `make_room`, `carry` as often as there are parts, `take`.
    `carried` (X,R,C,N,Dc) is merged with the weights of the tokens, which is exact for anything
    affine in the tokens, since the weights of a merge add up to 1. `at_most` is the number of
    frames to come, where it is known; `ragged` says that some rows skip some frames.
    """

    def __init__(
        self, rule: SlotRule, like: Tensor, *, at_most: int | None = None, ragged: bool = True
    ) -> None:
        """An empty bank for entries like `like` (R,N,D)."""
        rows, positions, width = like.shape
        self.rule = rule
        self.ragged = ragged
        self.steps = 0  # entries of the row that has most, known without asking the device
        self.full_at = None if rule.slots is None else rule.slots + 1
        self.compares = rule.compares and rule.slots is not None
        self.room = min([n for n in (self.full_at, at_most) if n], default=FIRST_SLOTS)
        self.tokens = like.new_zeros(rows, self.room, positions, width)
        self.carried: Tensor | None = None
        # frames a slot holds; slots from the oldest entry to the newest; likeness in that order
        self.counts = like.new_zeros(rows, self.room, positions, dtype=torch.float32)
        slots = torch.arange(self.room, device=like.device)
        self.order = slots[None, :, None].repeat(rows, 1, positions)
        wide = torch.promote_types(like.dtype, torch.float32)
        self.similarity = like.new_zeros(rows, max(self.room - 1, 1), positions, dtype=wide)
        # slots taken and frames taken by each row; the rows that take the entry at hand, and where
        self.length = torch.zeros(rows, dtype=torch.long, device=like.device)
        self.seen = self.length
        self.active = torch.zeros(rows, dtype=torch.bool, device=like.device)
        self.free = self.order[:, 0]

    def clone(self) -> Self:
        """The same bank in memory of its own."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(other, name, value.clone())
        return other

    @property
    def used(self) -> int:
        """How many slots any row has taken, the entry being taken included."""
        return min(self.steps + 1, self.room)

    def make_room(self, active: Tensor) -> None:
        """Find the slot of the next entry in rows that are `active` (R,)."""
        self.active = active
        if self.full_at is not None and self.steps >= self.full_at:
            self._free_one()
            return
        if self.steps == self.room:
            self._grow()
        self.free = self.length.clamp(max=self.room - 1)[:, None].expand_as(self.free)

    def carry(self, values: Tensor, rows: slice = slice(None)) -> Tensor:
        """Put `values` (X,r,N,Dc) beside the entries of `rows`; all that is there, (X,r,used,N,Dc).

        Slots past the number of entries of a row hold nothing of use.
        """
        if self.carried is None:
            parts, _, positions, width = values.shape
            shape = (parts, len(self.length), self.room, positions, width)
            self.carried = values.new_zeros(shape)
        at = (slice(None), *self._at(self.free, rows))
        carried = self.carried[:, rows]
        if self.ragged:
            values = torch.where(self.active[rows, None, None], values, carried[at])
        carried[at] = values.to(carried.dtype)
        return carried[:, :, : self.used]

    def take(self, tokens: Tensor) -> None:
        """Put the entry `tokens` (R,N,D) where room was made."""
        at, active = self._at(self.free), self.active
        if self.compares and self.steps:
            self._compare_newest(tokens)
        counts = active.to(self.counts.dtype)[:, None].expand(-1, tokens.shape[1])
        if self.ragged:
            tokens = torch.where(active[:, None, None], tokens, self.tokens[at])
            counts = torch.where(active[:, None], counts, self.counts[at])
        self.tokens[at] = tokens.to(self.tokens.dtype)
        self.counts[at] = counts
        self.length = (self.length + active).clamp(max=self.room)
        self.seen = self.seen + active
        self.steps += 1

    def mask(self) -> Tensor | None:
        """(R,used) True on the slots that hold something, or None if all of them do."""
        if not self.ragged:
            return None
        filled = (self.length + self.active).clamp(max=self.room)
        return torch.arange(self.used, device=filled.device) < filled[:, None]

    def state(self) -> MemoryState:
        """The bank in the order of time (R,S,N,D); shorter rows begin with empty slots."""
        used = min(self.steps, self.room)
        place = torch.arange(used, device=self.length.device) - (used - self.length[:, None])
        place = place[:, :, None].expand(-1, -1, self.tokens.shape[2])
        slot = self.order.gather(1, place.clamp(min=0))
        counts = self.counts.gather(1, slot).masked_fill(place < 0, 0)
        return MemoryState(self.tokens[self._at(slot)], counts, self.seen.clone())

    def _grow(self) -> None:
        """Twice the slots."""
        new = torch.arange(self.room, 2 * self.room, device=self.order.device)
        self.order = torch.cat([self.order, new[None, :, None].expand_as(self.order)], dim=1)
        self.tokens, self.counts = (
            torch.cat([old, torch.zeros_like(old)], dim=1) for old in (self.tokens, self.counts)
        )
        if self.carried is not None:
            self.carried = torch.cat([self.carried, torch.zeros_like(self.carried)], dim=2)
        self.room *= 2

    def _free_one(self) -> None:
        """Merge or forget in the full rows; the place that this frees is for the next entry."""
        full = (self.active & (self.length == self.room))[:, None]
        last = self.order.shape[1] - 1
        left = self.rule.pair(self.similarity)
        if left is None:
            gone = torch.zeros_like(self.order[:, 0])
        else:
            gone = left + 1
            self._merge(left, full)
        dropped = self.order.gather(1, gone[:, None])
        place = torch.arange(last, device=gone.device)[None, :, None]
        kept = self.order.gather(1, place + (place >= gone[:, None]).long())
        order = torch.cat([kept, dropped], dim=1)
        self.free = dropped[:, 0]
        if self.ragged:
            order = torch.where(full[:, None], order, self.order)
            self.free = torch.where(full, self.free, self.length.clamp(max=self.room - 1)[:, None])
        self.order = order

    def _merge(self, left: Tensor, full: Tensor) -> None:
        """In `full` rows the entries at places `left` and `left`+1 (R,N) become one."""
        keep, drop = (
            self._at(self.order.gather(1, place[:, None])[:, 0]) for place in (left, left + 1)
        )
        kept_count, dropped_count = self.counts[keep], self.counts[drop]
        if self.ragged:
            dropped_count = dropped_count * full
        total = kept_count + dropped_count
        tokens = at_least_single(self.tokens[keep])
        share = (dropped_count.to(tokens.dtype) / total.clamp(min=1))[..., None]
        tokens = torch.lerp(tokens, at_least_single(self.tokens[drop]), share)
        tokens = tokens.to(self.tokens.dtype)
        self.tokens[keep], self.counts[keep] = tokens, total
        if self.compares:
            self._compare_merged(left, tokens, full)
        if self.carried is not None:
            _merge_carried(self.carried, keep, drop, share)

    def _compare_merged(self, left: Tensor, merged: Tensor, full: Tensor) -> None:
        """Drop the merged pair's similarity and renew those of the merged slot's neighbours."""
        last = self.room - 1
        before = self._alike(merged, (left - 1).clamp(min=0))
        behind = self._alike(merged, (left + 2).clamp(max=last))
        place = torch.arange(last, device=left.device)[None, :, None]
        at = left[:, None]
        moved = self.similarity.gather(1, (place + (place >= at).long()).clamp(max=last - 1))
        moved = torch.where(place == at - 1, before[:, None], moved)
        moved = torch.where(place == at, behind[:, None], moved)
        self.similarity = (
            torch.where(full[:, None], moved, self.similarity) if self.ragged else moved
        )

    def _compare_newest(self, tokens: Tensor) -> None:
        """Note how much the entry `tokens` is like the one before it."""
        place = (self.length.clamp(max=self.room - 1) - 1).clamp(min=0)
        place = place[:, None].expand(-1, tokens.shape[1])
        alike = self._alike(tokens.to(self.tokens.dtype), place)[:, None]
        if self.ragged:
            known = self.similarity.gather(1, place[:, None])
            alike = torch.where(self.active[:, None, None], alike, known)
        self.similarity = self.similarity.scatter(1, place[:, None], alike)

    def _alike(self, tokens: Tensor, place: Tensor) -> Tensor:
        """Cosine similarity of `tokens` (R,N,D) with the entries at `place` (R,N) in time."""
        slot = self.order.gather(1, place[:, None])[:, 0]
        others = at_least_single(self.tokens[self._at(slot)])
        return F.cosine_similarity(others, at_least_single(tokens), dim=-1)

    def _at(self, slot: Tensor, rows: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """The index of slots (R,…,N) at every row and position of a buffer (R,C,N,…)."""
        slot = slot[rows]
        row = torch.arange(len(slot), device=slot.device)
        position = torch.arange(slot.shape[-1], device=slot.device)
        return row.view(-1, *[1] * (slot.ndim - 1)), slot, position


def _merge_carried(
    carried: Tensor, keep: tuple[Tensor, ...], drop: tuple[Tensor, ...], share: Tensor
) -> None:
    """Merge (X,R,C,N,Dc) one part at a time, which bounds the memory it takes."""
    for part in carried:
        wide = at_least_single(part[keep])
        merged = torch.lerp(wide, at_least_single(part[drop]), share.to(wide.dtype))
        part[keep] = merged.to(part.dtype)
