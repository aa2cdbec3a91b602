"""Tokens of each frame alone, kept as they come, or of the slots of a bank of frames.

What a frame's tokens are, a subclass says. Shapes: M films, V guides about them, T frames, P frame
tokens of width C, K tokens of a look at a frame, S memory slots.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor, nn

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import Memory, MemoryState, TextTokens
from mmavlm.core.settings import whole_at_least
from mmavlm.model.memory import TokenMerging
from mmavlm.model.temporal.looks import Looks, Wanted
from mmavlm.model.temporal.spacing import Piece, joined, spaced, stride_of, wider
from mmavlm.model.temporal.state import Film, beside, walk, watch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilmSoFar:
    """What was seen of films under guides: tokens of frames, or a bank of frames to be read.

    `film_of` (V,) says which film each guide asks about; None: each about its own. There were
    `steps` frames.
    """

    guide: TextTokens
    pieces: tuple[Piece, ...] = ()
    steps: int = 0
    visual_bank: MemoryState | None = None
    film_of: Tensor | None = None


class KeptFrames(nn.Module):
    """Looks at each frame alone, all with gradient, and keeps them while the film goes on.

    `max_frames` bounds how many are read (see `spacing`); with `memory`, a bank of frames, what is
    read are its slots.

    Raises:
        ConfigError: if both bound the film, or the memory leaves no patches where they were.
    """

    backprop_frames: int | None = None  # all frames carry gradient

    def bound(self, memory: Memory | None, max_frames: int | None) -> None:
        """Take what bounds how much is kept of a film; a subclass calls this when it is made."""
        whole_at_least("temporal", 1, max_frames=max_frames)
        _check_memory(self, memory, max_frames)
        self.memory, self.max_frames = memory, max_frames

    @abstractmethod
    def see(self, frames: Tensor, guide: TextTokens, film_of: Tensor | None = None) -> Tensor:
        """Frames (M,T,P,C) → the tokens (V,T,K,·) that V guides give of them."""

    def check_layers(self, layers: Sequence[int]) -> None:
        """Refuse to look behind single layers, where nothing has the width of the tokens.

        Raises:
            ConfigError: if there are any.
        """
        if layers:
            raise ConfigError(
                "alignment level cross aligns queries behind layers of the Q-Former, and "
                f"{type(self).__name__} makes its tokens of patches; choose "
                "alignment.levels=[low,high]"
            )

    def looks_at(self, frames: int) -> int:
        """How many frames, or slots, are read of a film of so many frames."""
        if self.memory is None:
            return -(-frames // stride_of(frames, self.max_frames))
        slots = getattr(self.memory, "slots", None)
        return frames if slots is None else min(frames, slots + 1)

    def start(self, guide: TextTokens, frame_tokens: Tensor) -> FilmSoFar:
        """The state before the first frame (V,P,C)."""
        bank = None if self.memory is None else self.memory.init(frame_tokens)
        return FilmSoFar(guide, visual_bank=bank)

    def step(self, state: FilmSoFar, frame_tokens: Tensor, mask: Tensor) -> FilmSoFar:
        """Take one frame (V,P,C); rows with `mask` False have none, and none later."""
        steps = state.steps + 1
        if state.visual_bank is not None:
            old, new = state.visual_bank, self._banked(state.visual_bank, frame_tokens, mask)
            return replace(state, visual_bank=beside(old, new, mask), steps=steps)
        pieces, stride = state.pieces, stride_of(steps, self.max_frames)
        if self.max_frames is not None and stride > stride_of(state.steps, self.max_frames):
            _say(stride, self.max_frames)
            pieces = (wider(pieces, stride, self.max_frames, mask),)
        if state.steps % stride == 0:
            seen = self.see(frame_tokens[:, None], state.guide)
            number = torch.full_like(mask[:, None], state.steps, dtype=torch.long)
            pieces = (*pieces, Piece(seen, number, mask[:, None]))
        return replace(state, pieces=pieces, steps=steps)

    def stream(self, guide: TextTokens, frames: Iterable[Tensor]) -> Iterator[FilmSoFar]:
        """The state after each of `frames` (V,P,C) as they come, without gradient.

        It grows up to `max_frames`, or to the slots of the memory.
        """
        return watch(frames, partial(self.start, guide), self.step)

    def forward(
        self,
        frame_tokens: Tensor,
        guide: TextTokens,
        frame_mask: Tensor,
        film_of: Tensor | None = None,
    ) -> FilmSoFar:
        """The state after M films (M,T,P,C), seen under V guides."""
        steps = frame_mask.shape[1]
        if self.memory is not None:
            film = Film.to_the_end(frame_tokens, frame_mask)
            (bank,) = deque(walk(film.steps(), self.memory.init, self._banked), maxlen=1)
            return FilmSoFar(guide, steps=steps, visual_bank=bank, film_of=film_of)
        if self.max_frames is not None and (stride := stride_of(steps, self.max_frames)) > 1:
            _say(stride, self.max_frames)
        frames, numbers, mask = spaced(frame_tokens, frame_mask, self.max_frames)
        if film_of is not None:
            numbers, mask = numbers[film_of], mask[film_of]
        seen = Piece(self.see(frames, guide, film_of), numbers, mask)
        return FilmSoFar(guide, (seen,), steps, film_of=film_of)

    def read(self, state: FilmSoFar) -> Tensor:
        """The video tokens so far, frame after frame, context before content: (V,looks·K,C)."""
        outputs, _, mask = self._seen(state)
        return outputs[:, : _longest(mask)].flatten(1, 2)

    def mask(self, state: FilmSoFar) -> Tensor | None:
        """Which looks (V,looks) are real, those in front; None where all are."""
        mask = self._real(state).sort(dim=1, descending=True).values
        mask = mask[:, : _longest(mask)]
        return None if bool(mask.all()) else mask

    def frames_of(self, state: FilmSoFar) -> list[list[int]]:
        """Of which frame each look is; a slot of the memory is of the last frame in it."""
        real, numbers = self._real(state), self._numbers(state)
        _, numbers, real = joined([Piece(numbers[:, :, None, None], numbers, real)])
        found: list[list[int]] = numbers.masked_fill(~real, state.steps).tolist()
        longest = _longest(real)
        return [row[:longest] for row in found]

    def look(
        self,
        frame_tokens: Tensor,
        guide: TextTokens,
        frame_mask: Tensor,
        wanted: Wanted,
        film_of: Tensor | None = None,
    ) -> tuple[FilmSoFar | None, Looks]:
        """What is made of some frames, each alone, and the state of all if one of them is late."""
        films = torch.arange(len(frame_mask), device=frame_mask.device)
        films = films if film_of is None else film_of
        frames, mask = wanted.numbers(frame_mask.sum(dim=1)[films])
        outputs = self.see(frame_tokens[films[:, None], frames], guide)
        state = None
        if wanted.middle or wanted.last:
            state = self(frame_tokens, guide, frame_mask, film_of)
        return state, Looks(frames, mask, outputs, None)

    def _banked(self, bank: MemoryState, frame_tokens: Tensor, mask: Tensor) -> MemoryState:
        assert self.memory is not None  # there is a bank
        return self.memory.append(self.memory.compress(bank), frame_tokens, mask)

    def _real(self, state: FilmSoFar) -> Tensor:
        """Which frames or slots (V,·) are real, as they stand."""
        if state.visual_bank is None:
            return torch.cat([piece.mask for piece in state.pieces], dim=1)
        real = state.visual_bank.counts[:, :, 0] > 0
        return real if state.film_of is None else real[state.film_of]

    def _numbers(self, state: FilmSoFar) -> Tensor:
        """The number of the frame (V,·), or of the last one in a slot, as they stand."""
        bank = state.visual_bank
        if bank is None:
            return torch.cat([piece.numbers for piece in state.pieces], dim=1)
        held = bank.counts.mean(dim=2).cumsum(dim=1)
        forgotten = bank.seen[:, None] - held[:, -1:]
        numbers = (held + forgotten).round().long() - 1
        return numbers if state.film_of is None else numbers[state.film_of]

    def _seen(self, state: FilmSoFar) -> Piece:
        """The tokens of all frames, or slots, those that are real in front."""
        if state.visual_bank is None or self.memory is None:
            (first, *later) = state.pieces
            return joined(state.pieces) if later else first  # in front are its real ones anyway
        tokens, real = self.memory.read(state.visual_bank)
        slots, numbers, real = joined([Piece(tokens, real.long(), real)])
        if state.film_of is not None:
            numbers, real = numbers[state.film_of], real[state.film_of]
        return Piece(self.see(slots, state.guide, state.film_of), numbers, real)


def _longest(mask: Tensor) -> int:
    return int(mask.sum(dim=1).max())


@cache
def _say(stride: int, at_most: int) -> None:
    """Say once what becomes of long films."""
    log.info(
        "films of more than temporal.max_frames=%d frames: every %d. frame is read", at_most, stride
    )


def _check_memory(reader: KeptFrames, memory: Memory | None, max_frames: int | None) -> None:
    """Refuse a memory that leaves no patches where they were, or one beside `max_frames`."""
    if memory is not None and max_frames is not None:
        raise ConfigError(
            "temporal.max_frames and temporal.memory both bound what is kept of a film; choose one "
            "and set the other to null"
        )
    if isinstance(memory, TokenMerging):
        raise ConfigError(
            f"memory=token_merging merges tokens across places, and {type(reader).__name__} reads "
            "patches where they were; choose memory=merge_adjacent or another"
        )
