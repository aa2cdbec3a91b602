"""What every memory bank shares: an empty bank, appending one frame, reading what is held."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import MemoryState

# Similarities closer than this are equal: rounding differs from device to device and from batch to
# batch, and is not to decide which of two equal pairs is merged.
SIMILARITY_STEP = 2**-20


def at_least_single(tokens: Tensor) -> Tensor:
    """The tokens in single precision or better, in which banks are merged."""
    return tokens.to(torch.promote_types(tokens.dtype, torch.float32))


def closeness(left: Tensor, right: Tensor) -> Tensor:
    """How alike entries (…,D) of length 1 are, −‖l − r‖²/2: their cosine similarity less 1.

    Entries next to each other in a film are so alike that in single precision their cosines differ
    in the last digits only, and rounding would decide which are merged; here all digits count.
    """
    return torch.linalg.vector_norm(left - right, dim=-1).square() / -2


def distinguishable(similarity: Tensor) -> Tensor:
    """Similarities in units of `SIMILARITY_STEP`: those alike but for rounding are equal."""
    return (similarity / SIMILARITY_STEP).round()


def drop_one_slot(state: MemoryState) -> MemoryState:
    """Drop the row's first empty slot, or its oldest one where none is empty."""
    drop = (state.counts[:, :, 0] == 0).int().argmax(dim=1)  # 0 where no slot is empty
    slot = torch.arange(state.counts.shape[1] - 1, device=state.counts.device)
    keep = slot + (slot >= drop[:, None]).long()  # (B,S-1)
    rows = torch.arange(keep.shape[0], device=keep.device)[:, None]
    return MemoryState(state.tokens[rows, keep], state.counts[rows, keep], state.seen)


class MemoryBank(ABC):
    """A bank of at most `length` slots; subclasses say how a longer one is compressed.

    A strategy that is also a `slots.SlotRule` can be kept in place, which is many times faster.

    Raises:
        ConfigError: if `length` is below the strategy's shortest bank.
    """

    shortest = 1

    def __init__(self, length: int) -> None:
        if length < self.shortest:
            raise ConfigError(
                f"memory.length is {length}, but {type(self).__name__} needs at least "
                f"{self.shortest}; give a bank length such as memory.length=20"
            )
        self.length = length

    def for_queries(self) -> MemoryBank:
        """The strategy for query banks: this one, where it treats each position by itself."""
        return self

    def init(self, tokens: Tensor) -> MemoryState:
        """An empty bank for entries like `tokens` (B,N,D)."""
        batch, positions, width = tokens.shape
        return MemoryState(
            tokens=tokens.new_zeros(batch, 0, positions, width),
            counts=tokens.new_zeros(batch, 0, positions, dtype=torch.float32),
            seen=torch.zeros(batch, dtype=torch.long, device=tokens.device),
        )

    def append(self, state: MemoryState, tokens: Tensor, mask: Tensor) -> MemoryState:
        """Add `tokens` (B,N,D) as newest slot, left empty in rows whose `mask` (B,) is False."""
        entry = tokens.to(state.tokens.dtype).unsqueeze(1)
        count = mask.float()[:, None, None].expand(-1, 1, tokens.shape[1])
        return MemoryState(
            tokens=torch.cat([state.tokens, entry], dim=1),
            counts=torch.cat([state.counts, count], dim=1),
            seen=state.seen + mask.long(),
        )

    def read(self, state: MemoryState) -> tuple[Tensor, Tensor]:
        """Tokens (B,S,N,D) and the mask (B,S) of filled slots."""
        return state.tokens, state.counts[:, :, 0] > 0

    @abstractmethod
    def compress(self, state: MemoryState) -> MemoryState:
        """Bring every row to at most `length` slots; a row's empty slots go first."""
