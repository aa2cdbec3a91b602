"""Every frame's query outputs, one behind the other: MA-LMM's code with its memory off.

Each frame is read by itself, with the prompt, from no past. There are as many video tokens as
frames times queries, so what the language model reads grows with the film.

Shapes: B films, T frames, P frame tokens, Dv their width, K query tokens, D Q-Former width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmavlm.core.interfaces import TextTokens
from mmavlm.model.qformer import QFormer
from mmavlm.model.temporal.looks import Looks, Wanted
from mmavlm.model.temporal.queries import GuidedQueries


@dataclass(frozen=True)
class ConcatState:
    """Query outputs (B,T,K,D) of the frames so far, real frames first as `mask` (B,T) says."""

    prompt: TextTokens
    outputs: Tensor
    mask: Tensor
    visual_bank: None = None

    @property
    def video_tokens(self) -> Tensor:
        """All of them, (B,T·K,D)."""
        return self.outputs.flatten(1, 2)


class Concat(GuidedQueries):
    """Query tokens that look at each frame alone; all of the looks are video tokens.

    Every frame carries gradient, so activations grow with the film. Parameters have the names of
    `MemoryQFormer`'s, so weights of either load into the other.

    Raises:
        ConfigError: if `num_query_tokens` is below 1.
    """

    backprop_frames: int | None = None  # all frames carry gradient

    def __init__(
        self,
        *,
        qformer: Callable[..., QFormer],
        visual_width: int,
        vocab_size: int,
        num_query_tokens: int = 32,
    ) -> None:
        super().__init__(qformer, visual_width, vocab_size, num_query_tokens)

    def looks_at(self, frames: int) -> int:
        """Every frame of so many gives tokens of its own."""
        return frames

    def start(self, prompt: TextTokens, frame_tokens: Tensor) -> ConcatState:
        """The state before the first frame, for frames like `frame_tokens` (B,P,Dv)."""
        none = self.query_tokens.new_zeros(len(frame_tokens), 0, *self.query_tokens.shape[1:])
        mask = torch.zeros(none.shape[:2], dtype=torch.bool, device=none.device)
        return ConcatState(prompt, none, mask)

    def step(self, state: ConcatState, frame_tokens: Tensor, mask: Tensor) -> ConcatState:
        """Look at a frame (B,P,Dv); rows with `mask` False have none, and none later."""
        outputs, _ = self._look(frame_tokens[:, None], state.prompt, ())
        return replace(
            state,
            outputs=torch.cat([state.outputs, outputs], dim=1),
            mask=torch.cat([state.mask, mask[:, None]], dim=1),
        )

    def read(self, state: ConcatState) -> Tensor:
        """The video tokens of the film so far, (B,T·K,D)."""
        return state.video_tokens

    def mask(self, state: ConcatState) -> Tensor | None:
        """Which looks are at real frames, (B,T); None where all are."""
        return None if bool(state.mask.all()) else state.mask

    def stream(self, prompt: TextTokens, frames: Iterable[Tensor]) -> Iterator[ConcatState]:
        """The state after each of `frames` (B,P,Dv) as they come; it grows with each of them."""
        state = None
        for frame_tokens in frames:
            with torch.no_grad():
                state = self.start(prompt, frame_tokens) if state is None else state
                everyone = torch.ones_like(frame_tokens[:, 0, 0], dtype=torch.bool)
                state = self.step(state, frame_tokens, everyone)
            yield state

    def forward(self, frame_tokens: Tensor, prompt: TextTokens, frame_mask: Tensor) -> ConcatState:
        """The state after a film (B,T,P,Dv), all frames of all films at once."""
        outputs, _ = self._look(frame_tokens, prompt, ())
        return ConcatState(prompt, outputs, frame_mask)

    def look(
        self, frame_tokens: Tensor, prompt: TextTokens, frame_mask: Tensor, wanted: Wanted
    ) -> tuple[ConcatState | None, Looks]:
        """What is made of some frames of a film, and the state after all of them if one is late."""
        lengths = frame_mask.sum(dim=1)
        whole = wanted.middle or wanted.last
        seen = frame_tokens if whole else frame_tokens[:, : wanted.first]
        outputs, crossed = self._look(seen, prompt, wanted.layers)
        frames, mask = wanted.numbers(lengths)
        rows = torch.arange(len(lengths), device=lengths.device)[:, None]
        looks = Looks(
            frames, mask, outputs[rows, frames], None if crossed is None else crossed[rows, frames]
        )
        return ConcatState(prompt, outputs, frame_mask) if whole else None, looks

    def _look(
        self, frames: Tensor, prompt: TextTokens, layers: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """Frames (B,T,P,Dv) → query outputs (B,T,K,D), and those (B,T,C,K,D) behind `layers`."""
        films, length = frames.shape[:2]
        text = TextTokens(
            prompt.ids.repeat_interleave(length, dim=0),
            prompt.mask.repeat_interleave(length, dim=0),
        )
        queries = self.query_tokens.expand(films * length, -1, -1)
        outputs, crossed = self.qformer.look(queries, text, frames.flatten(0, 1), layers)
        behind = torch.stack(crossed, dim=1).unflatten(0, (films, length)) if crossed else None
        return outputs.unflatten(0, (films, length)), behind
