"""What a Q-Former makes of chosen frames of a film, with gradient from where they stand in it.

The leading frames are seen from an empty memory. The middle one and the last are met on one way
through the film: before the middle frame the state is set aside, and one step with gradient from
there is all that the frame costs.

Shapes: B films, T frames, F frames looked at, C layers, K query tokens, D Q-Former width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmavlm.interfaces import TextTokens
from mmavlm.temporal.live import LiveState
from mmavlm.temporal.state import Film, MemoryQFormerState

if TYPE_CHECKING:
    from mmavlm.temporal.memory_qformer import MemoryQFormer, State


@dataclass(frozen=True)
class Wanted:
    """The `first` so many frames, the middle one (T//2) and the last, and what of them.

    `layers` are those behind whose cross-attention the query tokens are wanted, too.
    """

    first: int
    middle: bool = False
    last: bool = False
    layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Looks:
    """Query outputs (B,F,K,D) of F frames, whose numbers are `frames` (B,F).

    `mask` (B,F) is True where a film has such a frame, and it is not among those before. `crossed`
    (B,F,C,K,D) are the query tokens behind cross-attention, None where none were wanted.
    """

    frames: Tensor
    mask: Tensor
    outputs: Tensor
    crossed: Tensor | None


@dataclass
class _Found:
    """Looks as they come, one frame of all films after the other."""

    frames: list[Tensor] = field(default_factory=list)
    mask: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    crossed: list[Tensor] = field(default_factory=list)

    def add(self, frames: Tensor, mask: Tensor, state: State) -> None:
        self.frames.append(frames)
        self.mask.append(mask)
        self.outputs.append(state.video_tokens)
        if isinstance(state, MemoryQFormerState) and state.crossed is not None:
            self.crossed.append(state.crossed)

    def looks(self) -> Looks:
        return Looks(
            frames=torch.stack(self.frames, dim=1),
            mask=torch.stack(self.mask, dim=1),
            outputs=torch.stack(self.outputs, dim=1),
            crossed=torch.stack(self.crossed, dim=1) if self.crossed else None,
        )


def look(
    temporal: MemoryQFormer,
    frame_tokens: Tensor,
    prompt: TextTokens,
    frame_mask: Tensor,
    wanted: Wanted,
) -> tuple[State | None, Looks]:
    """As `MemoryQFormer.look`, for films (B,T,P,Dv) with masks (B,T)."""
    found, first = _Found(), wanted.first
    lengths = frame_mask.sum(dim=1)
    leading = Film.from_the_start(frame_tokens[:, :first], frame_mask[:, :first], wanted.layers)
    for taken, state in temporal.run(leading, prompt, 0, range(1, first + 1)):
        if taken:
            at = torch.full_like(lengths, taken - 1)
            found.add(at, frame_mask[:, taken - 1], state)
    if not (wanted.middle or wanted.last):
        return None, found.looks()

    film = Film.to_the_end(frame_tokens, frame_mask, wanted.layers if wanted.last else ())
    end, before = _to_the_end(temporal, film, prompt, pause=wanted.middle)
    if before is not None:
        at = lengths // 2
        rows = torch.arange(len(at), device=at.device)
        everyone = torch.ones_like(frame_mask[:, 0])
        seen = temporal.step(before, frame_tokens[rows, at], everyone, wanted.layers)
        new = at < lengths - 1 if wanted.last else everyone
        found.add(at, new & (at >= first), seen)
    if wanted.last:
        found.add(lengths - 1, lengths > first, end)
    return end, found.looks()


def _to_the_end(
    temporal: MemoryQFormer, film: Film, prompt: TextTokens, *, pause: bool
) -> tuple[State, MemoryQFormerState | None]:
    """The state after a film, and, with `pause`, that of each row before its middle frame."""
    grad_from = film.length - temporal.backprop_frames
    rows_at = _middle_steps(film) if pause else {}
    before: dict[int, MemoryQFormerState] = {}
    whole = None
    for taken, state in temporal.run(film, prompt, grad_from, rows_at):
        if taken in rows_at:
            kept = state.settled() if isinstance(state, LiveState) else state
            if film.ragged:
                before |= {row: kept.rows([row]) for row in rows_at[taken]}
            else:
                whole = kept
    return state, MemoryQFormerState.of_rows(before) if before else whole


def _middle_steps(film: Film) -> dict[int, list[int]]:
    """How many steps come before the middle frame, and of which rows."""
    if not film.ragged:
        return {film.length // 2: []}
    steps: dict[int, list[int]] = {}
    for row, frames in enumerate(film.mask.sum(dim=1).tolist()):
        steps.setdefault(film.length - frames + frames // 2, []).append(row)
    return steps
