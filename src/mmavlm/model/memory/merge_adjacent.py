"""Memory bank compression of MA-LMM (section 3.2): the most similar neighbours become one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmavlm.core.interfaces import MemoryState
from mmavlm.model.memory.base import MemoryBank, at_least_single, closeness


class MergeAdjacent(MemoryBank):
    """Merge, at each token position by itself, the two adjacent slots that are most alike.

    Likeness is cosine similarity, the first pair wins ties, and the merged slot is the mean
    weighted by how many frames each of the two holds, so that it stays the mean of its frames.
    """

    compares = True

    @property
    def slots(self) -> int:
        """How many slots there are at most."""
        return self.length

    def pair(self, similarity: Tensor) -> Tensor:
        """Similarities of neighbours (B,S−1,N) → the older one of the most similar pair, (B,N)."""
        return similarity.argmax(dim=1)

    def compress(self, state: MemoryState) -> MemoryState:
        """Merge until every row has at most `length` slots."""
        while state.tokens.shape[1] > self.length:
            state = self._merge_one_pair(state)
        return state

    def _merge_one_pair(self, state: MemoryState) -> MemoryState:
        """Merge one pair at every position: (B,S,N,D) → (B,S−1,N,D); counts add up."""
        wide = at_least_single(state.tokens)
        left, right = wide[:, :-1], wide[:, 1:]
        left_count, right_count = state.counts[:, :-1], state.counts[:, 1:]

        unit = F.normalize(wide, dim=-1)
        similarity = closeness(unit[:, :-1], unit[:, 1:])  # (B,S-1,N)
        # An empty slot weighs nothing: merged first, it vanishes and its neighbour stays as it is.
        has_empty = (left_count == 0) | (right_count == 0)
        pair = self.pair(similarity.masked_fill(has_empty, torch.inf))[:, None]

        total = left_count + right_count
        share = right_count.to(wide.dtype) / total.clamp(min=1)
        merged = torch.lerp(left, right, share.unsqueeze(-1))
        slot = torch.arange(left.shape[1], device=left.device)[None, :, None]
        before, at = slot < pair, slot == pair
        tokens = torch.where(
            before.unsqueeze(-1), left, torch.where(at.unsqueeze(-1), merged, right)
        )
        return MemoryState(
            tokens=tokens.to(state.tokens.dtype),
            counts=torch.where(before, left_count, torch.where(at, total, right_count)),
            seen=state.seen,
        )
