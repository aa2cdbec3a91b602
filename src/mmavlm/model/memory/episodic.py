"""HERMES' episodic compressor: what is alike becomes one episode, however far apart it was seen."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import MemoryState
from mmavlm.model.memory.base import MemoryBank, at_least_single, distinguishable

Unit = Literal["frame", "position"]


class EpisodicCompressor(MemoryBank):
    """Merge the most similar pair among all slots, not only among neighbours (HERMES, ECO).

    While bank and new frame are more than `length` episodes, the pair with the highest cosine
    similarity becomes its mean, in the place of the older one; the first pair wins ties. With
    `unit` "frame" a pair of whole frames is merged, by the mean similarity of their tokens, as the
    paper (arXiv 2408.17443) has it; with "position" each token position keeps episodes of its own,
    as MA-LMM's bank does. The mean is weighted by how many frames each of the two holds, as in
    HERMES' code (which however merges neighbours alone). Query banks take "position": what stands
    at the padding of a short prompt must not decide for the other positions.

    Raises:
        ConfigError: if `length` is below 1 or `unit` is unknown.
    """

    def __init__(self, length: int, unit: Unit = "frame") -> None:
        super().__init__(length)
        if unit not in ("frame", "position"):
            raise ConfigError(f"memory.unit is {unit!r}; choose 'frame' or 'position'")
        self.unit = unit

    def for_queries(self) -> EpisodicCompressor:
        """Positions decide for themselves: prompts are padded."""
        return EpisodicCompressor(self.length, "position")

    @property
    def slots(self) -> int:
        """How many slots there are at most."""
        return self.length

    def compress(self, state: MemoryState) -> MemoryState:
        """Merge until every row has at most `length` slots."""
        while state.tokens.shape[1] > self.length:
            state = self._merge_one_pair(state)
        return state

    def _merge_one_pair(self, state: MemoryState) -> MemoryState:
        """Merge one pair at every position: (B,S,N,D) → (B,S−1,N,D); counts add up."""
        wide, counts = at_least_single(state.tokens), state.counts
        older, newer = (place[:, None] for place in self._most_alike(wide, counts))  # (B,1,N)

        kept_count, gone_count = counts.gather(1, older), counts.gather(1, newer)
        total = kept_count + gone_count
        share = (gone_count / total.clamp(min=1)).to(wide.dtype).unsqueeze(-1)
        merged = torch.lerp(_slot(wide, older), _slot(wide, newer), share)

        slot = torch.arange(wide.shape[1] - 1, device=wide.device)[None, :, None]
        rest = slot + (slot >= newer).long()  # (B,S-1,N), without the newer one
        at = slot == older
        tokens = torch.where(at.unsqueeze(-1), merged, _slot(wide, rest))
        return MemoryState(
            tokens=tokens.to(state.tokens.dtype),
            counts=torch.where(at, total, counts.gather(1, rest)),
            seen=state.seen,
        )

    def _most_alike(self, tokens: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The older and the newer slot to merge, each (B,N)."""
        _, slots, positions, _ = tokens.shape
        unit = F.normalize(tokens, dim=-1)
        if self.unit == "frame":
            similarity = torch.einsum("bsnd,btnd->bst", unit, unit)[:, None] / positions
        else:
            similarity = torch.einsum("bsnd,btnd->bnst", unit, unit)
        empty = counts[:, :, 0] == 0
        has_empty = (empty[:, :, None] | empty[:, None, :])[:, None]  # (B,1,S,S)
        # An empty slot weighs nothing: merged first, it vanishes and the other stays as it is.
        similarity = distinguishable(similarity).masked_fill(has_empty, torch.inf)
        pairs = torch.ones(slots, slots, dtype=torch.bool, device=tokens.device).triu(1)
        best = similarity.masked_fill(~pairs, -torch.inf).flatten(2).argmax(dim=2)
        best = best.expand(-1, positions)
        return best // slots, best % slots


def _slot(tokens: Tensor, place: Tensor) -> Tensor:
    """Tokens (B,S,N,D) of the slots at `place` (B,s,N): (B,s,N,D)."""
    return tokens.gather(1, place.unsqueeze(-1).expand(-1, -1, -1, tokens.shape[-1]))
