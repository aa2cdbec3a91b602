"""Every frame's query outputs, one behind the other: MA-LMM's code with its memory off.

Each frame is read by itself, with the guide, from no past. There are as many video tokens as
frames times queries, so what the language model reads grows with the film. Shapes as in
`temporal.each_frame`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmavlm.core.interfaces import TextTokens
from mmavlm.model.qformer import QFormer
from mmavlm.model.temporal.each_frame import EachFrame, FrameLooks
from mmavlm.model.temporal.queries import GuidedQueries


class Concat(GuidedQueries, EachFrame):
    """Query tokens that look at each frame alone; all of the looks are video tokens.

    Parameters have the names of `MemoryQFormer`'s, so weights of either load into the other.

    Raises:
        ConfigError: if `num_query_tokens` is below 1.
    """

    def __init__(
        self,
        *,
        qformer: Callable[..., QFormer],
        visual_width: int,
        vocab_size: int,
        num_query_tokens: int = 32,
    ) -> None:
        super().__init__(qformer, visual_width, vocab_size, num_query_tokens)

    def see(
        self, frames: Tensor, guide: TextTokens, layers: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """Frames (B,T,P,Dv) → query outputs (B,T,K,D), and those (B,T,C,K,D) behind `layers`."""
        return self.look_at_each(frames, guide, layers)

    def join(self, state: FrameLooks, lengths: Tensor) -> Tensor:
        """The last of so many frames speaks for itself."""
        rows = torch.arange(len(lengths), device=lengths.device)[:, None]
        return state.outputs[rows, lengths - 1]

    def looks_at(self, frames: int) -> int:
        """Every frame of so many gives tokens of its own."""
        return frames

    def read(self, state: FrameLooks) -> Tensor:
        """The video tokens of the film so far, (B,T·K,D)."""
        return state.outputs.flatten(1, 2)

    def mask(self, state: FrameLooks) -> Tensor | None:
        """Which looks are at real frames, (B,T)."""
        return state.mask

    def frames_of(self, state: FrameLooks) -> Sequence[Sequence[int]] | None:
        """Each look is of a frame."""
        films, frames = state.mask.shape
        return [range(frames)] * films
