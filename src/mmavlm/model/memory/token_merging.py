"""Token merging over time: tokens of different moments and places become one (ToMe)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import MemoryState
from mmavlm.model.memory.base import MemoryBank, at_least_single, distinguishable, drop_one_slot

Across = Literal["space_time", "time"]


class TokenMerging(MemoryBank):
    """Keep `length` slots' worth of tokens by bipartite soft matching (ToMe, section 3.1).

    Across "space_time" all tokens of bank and new frame are one pool, of which as many are merged
    as a frame has, wherever they stood: video token merging in its plain form (Video Token
    Merging, NeurIPS 2024). A position of a slot is then a place in the pool, not in the picture.
    Across "time" tokens merge with those of their own position alone, one at each position; that is
    what query banks take, whose positions have masks of their own.

    Counts are ToMe's token sizes: how many frames' tokens a token is the mean of. Attention does
    not look at them (ToMe's proportional attention would), as with all memories here.

    Raises:
        ConfigError: if `length` is below 1 or `across` is unknown.
    """

    def __init__(self, length: int, across: Across = "space_time") -> None:
        super().__init__(length)
        if across not in ("space_time", "time"):
            raise ConfigError(f"memory.across is {across!r}; choose 'space_time' or 'time'")
        self.across = across

    def for_queries(self) -> TokenMerging:
        """Over time alone: positions of queries and words have masks of their own."""
        return TokenMerging(self.length, "time")

    @property
    def slots(self) -> int:
        """How many slots there are at most."""
        return self.length

    def compress(self, state: MemoryState) -> MemoryState:
        """Merge until every row has at most `length` slots."""
        while state.tokens.shape[1] > self.length:
            state = self._one_slot_less(state)
        return state

    def _one_slot_less(self, state: MemoryState) -> MemoryState:
        """(B,S,N,D) → (B,S−1,N,D): an empty slot goes, or tokens merge where none is empty."""
        batch, slots, positions, _ = state.tokens.shape
        tokens, counts = at_least_single(state.tokens), state.counts
        slot = torch.arange(slots, device=tokens.device)
        if self.across == "space_time":
            # a chessboard: neighbours in time and in place are on either side of the matching
            side = (slot[:, None] + torch.arange(positions, device=tokens.device)) % 2
            tokens, counts = merge_alike(
                tokens.flatten(1, 2), counts.flatten(1, 2), side.flatten(), positions
            )
            tokens = tokens.unflatten(1, (slots - 1, positions))
            counts = counts.unflatten(1, (slots - 1, positions))
        else:
            columns = tokens.transpose(1, 2).flatten(0, 1), counts.transpose(1, 2).flatten(0, 1)
            tokens, counts = merge_alike(*columns, slot % 2, 1)
            tokens = tokens.unflatten(0, (batch, positions)).transpose(1, 2)
            counts = counts.unflatten(0, (batch, positions)).transpose(1, 2)
        shorter = drop_one_slot(state)
        has_empty = (state.counts[:, :, 0] == 0).any(dim=1)[:, None, None]
        return MemoryState(
            tokens=torch.where(has_empty[..., None], shorter.tokens, tokens.to(shorter.tokens)),
            counts=torch.where(has_empty, shorter.counts, counts),
            seen=state.seen,
        )


def merge_alike(tokens: Tensor, sizes: Tensor, side: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge `count` of the tokens (R,T,D), weighted by their sizes (R,T): (R,T−count,D), sizes.

    Each token of side 0 (`side` (T,) is 0 and 1 in turn) looks for the token of side 1 that is most
    like it; the `count` best pairs are merged in the place of side 1, where several may meet. The
    others stay as they are, in their order. Earlier tokens win ties.
    """
    length = tokens.shape[1]
    order = side.argsort(stable=True)
    sources, targets = order[: (length + 1) // 2], order[(length + 1) // 2 :]
    unit = F.normalize(tokens, dim=-1)
    similarity = distinguishable(unit[:, sources] @ unit[:, targets].mT)  # (R,T/2,T/2)
    nearest = similarity.argmax(dim=2)
    best = similarity.gather(2, nearest[..., None])[..., 0]
    chosen = best.argsort(dim=1, descending=True, stable=True)[:, :count]
    gone, into = sources[chosen], targets[nearest.gather(1, chosen)]  # (R,count)

    weight = sizes.gather(1, gone)
    added_size = torch.zeros_like(sizes).scatter_add(1, into, weight)
    weighted = _at(tokens, gone) * weight[..., None]
    added = torch.zeros_like(tokens).scatter_add(1, into[..., None].expand_as(weighted), weighted)
    total = sizes + added_size
    # where nothing was added, the token stays bit for bit
    change = (added - added_size[..., None] * tokens) / total.clamp(min=1)[..., None]
    is_gone = torch.zeros_like(sizes).scatter(1, gone, 1)
    kept = is_gone.argsort(dim=1, stable=True)[:, : length - count]
    return _at(tokens + change, kept), total.gather(1, kept)


def _at(tokens: Tensor, place: Tensor) -> Tensor:
    """Tokens (R,T,D) at `place` (R,t): (R,t,D)."""
    return tokens.gather(1, place[..., None].expand(-1, -1, tokens.shape[-1]))
