"""A bank at work: slots stay where they are and are written over, so no frame copies the bank.

Attention does not see the order of its keys. So the order of the slots is kept beside them, one
table a position; two slots are merged into the place of one of them and the next entry goes into
the place of the other. Merging changes at most two similarities and the newest entry adds one, so
they are kept rather than computed anew. What happens at an entry is written down as a `Move`, so
that other things can follow the bank (`memory.carried`), at once or later.

Shapes: R rows, C slots, N token positions, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from mmavlm.core.interfaces import MemoryState
from mmavlm.model.memory.base import at_least_single, closeness

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

        Takes how alike neighbours are (R,C−1,N), by the order of their cosine similarities.
        """


@dataclass(frozen=True)
class Merge:
    """At each position (R,N) the slot `drop` joins the slot `keep`, by its `share` (R,N).

    There are `room` slots.
    """

    keep: Tensor
    drop: Tensor
    share: Tensor
    room: int

    @cached_property
    def keep_at(self) -> Tensor:
        """Which entries of a buffer (R,room,N,…) `keep` are, (R·N,)."""
        return entries_at(self.keep, self.room)

    @cached_property
    def drop_at(self) -> Tensor:
        """Which entries of a buffer (R,room,N,…) `drop` are, (R·N,)."""
        return entries_at(self.drop, self.room)

    def of(self, rows: slice, positions: slice) -> Merge:
        """The same of some rows and positions."""
        keep, drop, share = (part[rows, positions] for part in (self.keep, self.drop, self.share))
        return Merge(keep, drop, share, self.room)


@dataclass(frozen=True)
class Move:
    """What a bank does for one entry: slots to merge, if any, and the slots it goes into.

    The rows that are `active` (R,) take it, at slot `free` (R,N). Then `used` slots of at most
    `room` hold something in some row, and `filled` (R,) in each (None: all of them in every row).
    """

    active: Tensor
    free: Tensor
    merge: Merge | None
    filled: Tensor | None
    used: int
    room: int

    @cached_property
    def free_at(self) -> Tensor:
        """Which entries of a buffer (R,room,N,…) `free` are, (R·N,)."""
        return entries_at(self.free, self.room)

    def of(self, rows: slice = slice(None), positions: slice = slice(None)) -> Move:
        """The same of some rows and positions."""
        return replace(
            self,
            active=self.active[rows],
            free=self.free[rows, positions],
            merge=self.merge and self.merge.of(rows, positions),
            filled=None if self.filled is None else self.filled[rows],
        )

    def mask(self) -> Tensor | None:
        """(R,used) True on the slots that hold something, or None if all of them do."""
        if self.filled is None:
            return None
        return torch.arange(self.used, device=self.filled.device) < self.filled[:, None]


def entries_at(slot: Tensor, room: int) -> Tensor:
    """Which entries of a buffer (R,room,N,…), counted through, slots (R,…,N) are: (R·…·N,)."""
    row = torch.arange(len(slot), device=slot.device).view(-1, *[1] * (slot.ndim - 1))
    position = torch.arange(slot.shape[-1], device=slot.device)
    return torch.add(position, slot + room * row, alpha=len(position)).flatten()


def entries(buffer: Tensor) -> Tensor:
    """The entries (R·C·N,…) of a buffer (R,C,N,…) in the same memory, counted through.

    Entries that are counted are read as a whole, over three times faster than by three indices.
    """
    return buffer.view(-1, *buffer.shape[3:])


def taken_from(buffer: Tensor, slot: Tensor) -> Tensor:
    """What slots (R,…,N) of a buffer (R,C,N,D) hold, (R,…,N,D)."""
    at = entries_at(slot, buffer.shape[1])
    return entries(buffer).index_select(0, at).view(*slot.shape, *buffer.shape[3:])


def merge_slots(buffer: Tensor, merge: Merge) -> Tensor:
    """Merge slots of `buffer` (R,C,N,D) in place, in single precision or better; the result."""
    held = entries(buffer)
    kept, dropped = (
        at_least_single(held.index_select(0, at)) for at in (merge.keep_at, merge.drop_at)
    )
    share = merge.share.to(kept.dtype).view(-1, 1)
    merged = torch.lerp(kept, dropped, share).to(buffer.dtype)
    held.index_copy_(0, merge.keep_at, merged)
    return merged.view(*merge.keep.shape, *buffer.shape[3:])


def put_entry(buffer: Tensor, move: Move, values: Tensor) -> None:
    """Write `values` (R,N,…) of an entry where room was made in `buffer` (R,C,N,…)."""
    held, at = entries(buffer), move.free_at
    values = values.flatten(0, 1).to(buffer.dtype)
    if move.filled is not None:
        active = move.active.repeat_interleave(move.free.shape[1])
        active = active.view(-1, *[1] * (values.ndim - 1))
        values = torch.where(active, values, held.index_select(0, at))
    held.index_copy_(0, at, values)


class SlotBank:
    """The slots of R rows, written over in place.

    An entry is taken in two moves: `make_room` and `take`. `at_most` is the number of entries to
    come, where it is known; `ragged` says that some rows skip some of them.
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
        # frames a slot holds; slots from the oldest entry to the newest; likeness in that order
        self.counts = like.new_zeros(rows, self.room, positions, dtype=torch.float32)
        slots = torch.arange(self.room, device=like.device)
        self.order = slots[None, :, None].repeat(rows, 1, positions)
        wide = torch.promote_types(like.dtype, torch.float32)
        self.similarity = like.new_zeros(rows, max(self.room - 1, 1), positions, dtype=wide)
        # slots taken and entries taken by each row
        self.length = torch.zeros(rows, dtype=torch.long, device=like.device)
        self.seen = torch.zeros_like(self.length)

    def clone(self) -> Self:
        """The same bank in memory of its own."""
        return self._with_tensors(torch.clone)

    def part(self, rows: slice) -> Self:
        """Some rows of the bank, in the same memory; the bank must not have to grow meanwhile."""
        return self._with_tensors(lambda tensor: tensor[rows])

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(other, name, change(value))
        return other

    def make_room(self, active: Tensor) -> Move:
        """Find the slot of the next entry in rows that are `active` (R,)."""
        merge = None
        if self.full_at is not None and self.steps >= self.full_at:
            free, merge = self._free_one(active)
        else:
            if self.steps == self.room:
                self._grow()
            free = self._next_slot().expand(-1, self.order.shape[2])
        return Move(
            active=active,
            free=free,
            merge=merge,
            filled=(self.length + active).clamp(max=self.room) if self.ragged else None,
            used=min(self.steps + 1, self.room),
            room=self.room,
        )

    def take(self, move: Move, tokens: Tensor) -> None:
        """Put the entry `tokens` (R,N,D) where room was made."""
        active = move.active
        if self.compares and self.steps:
            self._compare_newest(tokens, active)
        put_entry(self.tokens, move, tokens)
        put_entry(self.counts, move, active[:, None].expand(-1, tokens.shape[1]))
        self.length.add_(active).clamp_(max=self.room)
        self.seen.add_(active)
        self.steps += 1

    def state(self) -> MemoryState:
        """The bank in the order of time (R,S,N,D); shorter rows begin with empty slots."""
        used = min(self.steps, self.room)
        place = torch.arange(used, device=self.length.device) - (used - self.length[:, None])
        place = place[:, :, None].expand(-1, -1, self.tokens.shape[2])
        slot = self.order.gather(1, place.clamp(min=0))
        counts = self.counts.gather(1, slot).masked_fill(place < 0, 0)
        return MemoryState(taken_from(self.tokens, slot), counts, self.seen.clone())

    def _next_slot(self) -> Tensor:
        """The slot behind those taken, (R,1)."""
        return self.length.clamp(max=self.room - 1)[:, None]

    def _grow(self) -> None:
        """Twice the slots."""
        new = torch.arange(self.room, 2 * self.room, device=self.order.device)
        self.order = torch.cat([self.order, new[None, :, None].expand_as(self.order)], dim=1)
        self.tokens, self.counts = (
            torch.cat([old, torch.zeros_like(old)], dim=1) for old in (self.tokens, self.counts)
        )
        self.room *= 2

    def _free_one(self, active: Tensor) -> tuple[Tensor, Merge | None]:
        """Merge or forget in the full rows; the place that this frees is for the next entry."""
        full = (active & (self.length == self.room))[:, None]
        last = self.order.shape[1] - 1
        left, merge = self.rule.pair(self.similarity), None
        if left is None:
            gone = torch.zeros_like(self.order[:, 0])
        else:
            gone = left + 1
            merge = self._merge(left, full)
        dropped = self.order.gather(1, gone[:, None])
        place = torch.arange(last, device=gone.device)[None, :, None]
        kept = self.order.gather(1, place + (place >= gone[:, None]).long())
        order = torch.cat([kept, dropped], dim=1)
        free = dropped[:, 0]
        if self.ragged:
            order = torch.where(full[:, None], order, self.order)
            free = torch.where(full, free, self._next_slot())
        self.order.copy_(order)
        return free, merge

    def _merge(self, left: Tensor, full: Tensor) -> Merge:
        """In `full` rows the entries at places `left` and `left`+1 (R,N) become one."""
        keep, drop = (self.order.gather(1, place[:, None])[:, 0] for place in (left, left + 1))
        kept_count, dropped_count = (
            self.counts.gather(1, slot[:, None])[:, 0] for slot in (keep, drop)
        )
        if self.ragged:
            dropped_count = dropped_count * full
        total = kept_count + dropped_count
        share = dropped_count.to(self.similarity.dtype) / total.clamp(min=1)
        merge = Merge(keep, drop, share, self.room)
        tokens = merge_slots(self.tokens, merge)
        self.counts.scatter_(1, keep[:, None], total[:, None])
        if self.compares:
            self._compare_merged(left, tokens, full)
        return merge

    def _compare_merged(self, left: Tensor, merged: Tensor, full: Tensor) -> None:
        """Drop the merged pair's similarity and renew those of the merged slot's neighbours."""
        last = self.room - 1
        neighbours = torch.stack([left - 1, left + 2], dim=1).clamp(min=0, max=last)
        before, behind = self._alike(merged, neighbours).split(1, dim=1)
        place = torch.arange(last, device=left.device)[None, :, None]
        at = left[:, None]
        moved = self.similarity.gather(1, (place + (place >= at).long()).clamp(max=last - 1))
        moved = torch.where(place == at - 1, before, moved)
        moved = torch.where(place == at, behind, moved)
        if self.ragged:
            moved = torch.where(full[:, None], moved, self.similarity)
        self.similarity.copy_(moved)

    def _compare_newest(self, tokens: Tensor, active: Tensor) -> None:
        """Note how much the entry `tokens` is like the one before it."""
        place = (self.length.clamp(max=self.room - 1) - 1).clamp(min=0)
        place = place[:, None, None].expand(-1, 1, tokens.shape[1])
        alike = self._alike(tokens.to(self.tokens.dtype), place)
        if self.ragged:
            alike = torch.where(active[:, None, None], alike, self.similarity.gather(1, place))
        self.similarity.scatter_(1, place, alike)

    def _alike(self, tokens: Tensor, place: Tensor) -> Tensor:
        """How much `tokens` (R,N,D) are like the entries at `place` (R,k,N) in time."""
        others = at_least_single(taken_from(self.tokens, self.order.gather(1, place)))
        ours = F.normalize(at_least_single(tokens), dim=-1)
        return closeness(ours[:, None], F.normalize(others, dim=-1))
