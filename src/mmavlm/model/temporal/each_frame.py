"""What aggregators that read each frame by itself have in common: all but how frames are joined.

Shapes: B films, T frames, F prefixes of a film, P frame tokens, Dv their width, K query tokens,
D their width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mmavlm.core.interfaces import TextTokens
from mmavlm.model.temporal.looks import Looks, Wanted, of_views
from mmavlm.model.temporal.state import watch


@dataclass(frozen=True)
class FrameLooks:
    """What was seen in the frames so far, one by one, under a guide.

    `pieces` are query outputs (B,t,K,D) and masks (B,t), True at real frames, which come first;
    one piece a step, so that a step costs the same however long the film is.
    """

    guide: TextTokens
    pieces: tuple[tuple[Tensor, Tensor], ...]
    visual_bank: None = None

    @property
    def outputs(self) -> Tensor:
        """All query outputs, (B,T,K,D)."""
        return torch.cat([outputs for outputs, _ in self.pieces], dim=1)

    @property
    def mask(self) -> Tensor:
        """Which frames are real, (B,T)."""
        return torch.cat([mask for _, mask in self.pieces], dim=1)


class EachFrame(nn.Module):
    """Reads each frame alone; every frame carries gradient, so activations grow with the film."""

    backprop_frames: int | None = None  # all frames carry gradient

    @abstractmethod
    def see(
        self, frames: Tensor, guide: TextTokens, layers: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """Frames (B,T,P,Dv) → query outputs (B,T,K,D), and those (B,T,C,K,D) behind `layers`."""

    @abstractmethod
    def join(self, state: FrameLooks, lengths: Tensor) -> Tensor:
        """What is made of the first `lengths` (B,F) frames of each film: looks (B,F,K,D)."""

    def looks_at(self, frames: int) -> int:
        """One look, however many frames there are."""
        return 1

    def start(self, guide: TextTokens, frame_tokens: Tensor) -> FrameLooks:
        """The state before the first frame."""
        return FrameLooks(guide, ())

    def step(self, state: FrameLooks, frame_tokens: Tensor, mask: Tensor) -> FrameLooks:
        """Look at a frame (B,P,Dv); rows with `mask` False have none, and none later."""
        outputs, _ = self.see(frame_tokens[:, None], state.guide, ())
        return FrameLooks(state.guide, (*state.pieces, (outputs, mask[:, None])))

    def read(self, state: FrameLooks) -> Tensor:
        """The video tokens of the film so far, look after look: (B,looks·K,D)."""
        return self.join(state, state.mask.sum(dim=1, keepdim=True))[:, 0]

    def mask(self, state: FrameLooks) -> Tensor | None:
        """Every look is real."""
        return None

    def frames_of(self, state: FrameLooks) -> Sequence[Sequence[int]] | None:
        """A look is of all frames."""
        return None

    def stream(self, guide: TextTokens, frames: Iterable[Tensor]) -> Iterator[FrameLooks]:
        """The state after each of `frames` (B,P,Dv) as they come; it grows with each of them."""
        return watch(frames, partial(self.start, guide), self.step)

    def forward(
        self,
        frame_tokens: Tensor,
        guide: TextTokens,
        frame_mask: Tensor,
        film_of: Tensor | None = None,
    ) -> FrameLooks:
        """The state after a film (B,T,P,Dv), all frames of all films at once."""
        frame_tokens, frame_mask = of_views(frame_tokens, frame_mask, film_of)
        outputs, _ = self.see(frame_tokens, guide, ())
        return FrameLooks(guide, ((outputs, frame_mask),))

    def look(
        self,
        frame_tokens: Tensor,
        guide: TextTokens,
        frame_mask: Tensor,
        wanted: Wanted,
        film_of: Tensor | None = None,
    ) -> tuple[FrameLooks | None, Looks]:
        """What is made of a film up to some frames, and the state of all if one of them is late.

        What is wanted behind layers is seen in these frames alone.
        """
        frame_tokens, frame_mask = of_views(frame_tokens, frame_mask, film_of)
        late = wanted.middle or wanted.last
        seen = slice(None) if late else slice(wanted.first)
        outputs, crossed = self.see(frame_tokens[:, seen], guide, wanted.layers)
        state = FrameLooks(guide, ((outputs, frame_mask[:, seen]),))
        frames, mask = wanted.numbers(frame_mask.sum(dim=1))
        if crossed is not None:
            rows = torch.arange(len(frames), device=frames.device)[:, None]
            crossed = crossed[rows, frames]
        return state if late else None, Looks(frames, mask, self.join(state, frames + 1), crossed)
