"""What a Q-Former makes of chosen frames of a film, with gradient from where they stand in it.

The leading frames are seen from an empty memory. The middle one and the last are met on one way
through the film: before the middle frame the state is set aside, and one step with gradient from
there is all that the frame costs. So it is with leading frames of which only some are learned from.

Shapes: B films, T frames, F frames looked at, C layers, K query tokens, D Q-Former width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmavlm.core.interfaces import TextTokens
from mmavlm.model.temporal.live import LiveState
from mmavlm.model.temporal.state import Film, MemoryQFormerState

if TYPE_CHECKING:
    from mmavlm.model.temporal.memory_qformer import MemoryQFormer, State


def of_views(
    frame_tokens: Tensor, frame_mask: Tensor, film_of: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Films (M,T,P,Dv) and masks (M,T) → a row for each view, by the film it is of (V,)."""
    if film_of is None:
        return frame_tokens, frame_mask
    return frame_tokens[film_of], frame_mask[film_of]


@dataclass(frozen=True)
class Wanted:
    """The `first` so many frames, the middle one (T//2) and the last, and what of them.

    `layers` are those behind whose cross-attention the query tokens are wanted, too. Of the first
    frames those in `learned` need a gradient, None for all; others may carry one.
    """

    first: int
    middle: bool = False
    last: bool = False
    layers: tuple[int, ...] = ()
    learned: frozenset[int] | None = None

    def numbers(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers (B,F) of the frames of films of `lengths` (B,), and their mask.

        It is True where a film has such a frame, and it is not among those before.
        """
        first = torch.arange(self.first, device=lengths.device).expand(len(lengths), -1)
        frames, mask = [*first.unbind(1)], [*(first < lengths[:, None]).unbind(1)]
        if self.middle:
            frames.append(lengths // 2)
            before_the_last = frames[-1] < lengths - int(self.last)
            mask.append((frames[-1] >= self.first) & before_the_last)
        if self.last:
            frames.append(lengths - 1)
            mask.append(lengths > self.first)
        return torch.stack(frames, dim=1), torch.stack(mask, dim=1)


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


def look(
    temporal: MemoryQFormer,
    frame_tokens: Tensor,
    prompt: TextTokens,
    frame_mask: Tensor,
    wanted: Wanted,
) -> tuple[State | None, Looks]:
    """As `MemoryQFormer.look`, for films (B,T,P,Dv) with masks (B,T)."""
    first = wanted.first
    leading = Film.from_the_start(frame_tokens[:, :first], frame_mask[:, :first], wanted.layers)
    seen = _leading(temporal, leading, prompt, wanted.learned)
    end: State | None = None
    lengths = frame_mask.sum(dim=1)
    if wanted.middle or wanted.last:
        film = Film.to_the_end(frame_tokens, frame_mask, wanted.layers if wanted.last else ())
        end, before = _to_the_end(temporal, film, prompt, pause=wanted.middle)
        if before is not None:
            rows = torch.arange(len(lengths), device=lengths.device)
            middle, everyone = frame_tokens[rows, lengths // 2], torch.ones_like(frame_mask[:, 0])
            seen.append(_seen(temporal.step(before, middle, everyone, wanted.layers)))
        if wanted.last:
            seen.append(_seen(end))
    crossed = [behind for _, behind in seen if behind is not None]
    return end, Looks(
        *wanted.numbers(lengths),
        outputs=torch.stack([outputs for outputs, _ in seen], dim=1),
        crossed=torch.stack(crossed, dim=1) if crossed else None,
    )


def _leading(
    temporal: MemoryQFormer, film: Film, prompt: TextTokens, learned: frozenset[int] | None
) -> list[tuple[Tensor, Tensor | None]]:
    """What is seen of each frame, with gradient of all or of those that are `learned`."""
    stops = range(1, film.length + 1)
    if learned is None or film.layers or temporal.backprop_frames > 1:
        # What was seen is kept, not the states: each holds a bank.
        return [_seen(state) for taken, state in temporal.run(film, prompt, 0, stops) if taken]
    seen: list[tuple[Tensor, Tensor | None]] = []
    before: dict[int, MemoryQFormerState] = {}
    for taken, state in temporal.run(film, prompt, film.length, stops):
        if taken:
            seen.append((state.video_tokens.clone(), None))
        if taken in learned and taken < film.length:
            before[taken] = state.settled() if isinstance(state, LiveState) else state
    for number, earlier in before.items():
        seen[number] = _seen(temporal.step(earlier, *film.frame(number)))
    return seen


def _seen(state: State) -> tuple[Tensor, Tensor | None]:
    return state.video_tokens, getattr(state, "crossed", None)


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
