"""Tokens made of a frame's patches, one of them under a guide, for all frames of a film.

What reads guide and frame, a subclass says (`context_content`). Shapes: M films, V guides about
them, T frames, P frame tokens of width C, N of them patches, Q rows that read a frame, D their
width, n content tokens, K = n+1, S memory slots.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import TypedDict, Unpack

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import Memory, MemoryState, PatchGrid, TextTokens
from mmavlm.core.settings import whole_at_least
from mmavlm.model.memory import TokenMerging
from mmavlm.model.temporal.looks import Looks, Wanted
from mmavlm.model.temporal.spacing import Piece, joined, spaced, stride_of, wider
from mmavlm.model.temporal.state import Film, beside
from mmavlm.model.temporal.token_projector import TokenProjector

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


class PatchSettings(TypedDict, total=False):
    """Settings of `PatchTokens`: what is made of a frame, and of which frames."""

    content: str | int | None  # "mean"; the side of a grid; None: every patch
    projector: str  # mlp2x_gelu, see `TokenProjector`
    memory: Memory | None  # None; a bank of frames, whose slots are read in their place
    max_frames: int | None  # None; of longer films so many at most are read, see `spacing`
    frames_at_once: int  # 64; bounds what is held without gradient, changes no result
    train_context: bool  # True; False freezes the three projections of the context token


class PatchTokens(nn.Module):
    """A token of what the guide asks for and some of all that is there, for every frame.

    What the rows of a reader find in the patches X (N,C) is the context token: the mean over rows
    of softmax(QKᵀ/√C)·X, with Q projected from the rows and K from the patches (LLaMA-VID,
    arXiv 2311.17043, section 3). The content tokens are the patches, or means of them.

    Raises:
        ConfigError: if a setting is none of these, or they cannot stand together.
    """

    patches: PatchGrid
    backprop_frames: int | None = None  # all frames carry gradient

    def make(self, reader_width: int, width: int, **settings: Unpack[PatchSettings]) -> None:
        """Make the parts that need no reader; a subclass calls this when it has one."""
        self.content = settings.get("content", "mean")
        self.projector_kind = settings.get("projector", "mlp2x_gelu")
        self.memory = settings.get("memory")
        self.max_frames = settings.get("max_frames")
        self.frames_at_once = settings.get("frames_at_once", 64)
        self.train_context = settings.get("train_context", True)
        if self.content != "mean":
            whole_at_least("temporal", 1, content=self.content)
        frames = {"max_frames": self.max_frames, "frames_at_once": self.frames_at_once}
        whole_at_least("temporal", 1, **frames)
        _check_memory(self.memory, self.max_frames)
        self.query = nn.Linear(reader_width, width)
        self.key = nn.Linear(width, width)
        for projection in (self.query, self.key):
            projection.requires_grad_(self.train_context)

    @abstractmethod
    def found(
        self, frames: Tensor, guide: TextTokens, film_of: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What rows (V,T,Q,D) read in frames (M,T,P,C) under guides; which (V,Q) are real."""

    def take_patches(self, grid: PatchGrid) -> None:
        """Take which of the frame tokens are patches.

        Raises:
            ConfigError: if content is a grid with more places than there are patches.
        """
        if isinstance(self.content, int) and self.content > min(grid.rows, grid.columns):
            raise ConfigError(
                f"temporal.content={self.content} is the side of a grid, and the encoder gives "
                f"{grid.rows} x {grid.columns} patches; choose a smaller one"
            )
        self.patches = grid

    def projector(self, llm_width: int) -> TokenProjector:
        """The projections of context and content to the width of the language model."""
        made = TokenProjector(self.width, llm_width, self.num_queries, self.projector_kind)
        made.context.requires_grad_(self.train_context)
        return made

    @property
    def width(self) -> int:
        """C, the width of patches and of the tokens made of them."""
        return self.key.in_features

    @property
    def num_queries(self) -> int:
        """K: the context token and the content tokens of a frame."""
        if isinstance(self.content, int):
            return 1 + self.content**2
        return 2 if self.content else 1 + self.patches.rows * self.patches.columns

    def check_layers(self, layers: Sequence[int]) -> None:
        """Refuse to look behind single layers, where nothing has the width of the tokens.

        Raises:
            ConfigError: if there are any.
        """
        if layers:
            raise ConfigError(
                "alignment level cross aligns queries behind layers of the Q-Former, and "
                "temporal=context_content makes its tokens of patches; choose "
                "alignment.levels=[low,high]"
            )

    def looks_at(self, frames: int) -> int:
        """How many frames, or slots, are read of a film of so many frames."""
        if self.memory is None:
            return -(-frames // stride_of(frames, self.max_frames))
        slots = getattr(self.memory, "slots", None)
        return frames if slots is None else min(frames, slots + 1)

    def see(self, frames: Tensor, guide: TextTokens, film_of: Tensor | None = None) -> Tensor:
        """Frames (M,T,P,C) → the tokens (V,T,K,C) that V guides give of them."""
        some = frames.split(self.frames_at_once, dim=1)
        return torch.cat([self._see(part, guide, film_of) for part in some], dim=1)

    def _see(self, frames: Tensor, guide: TextTokens, film_of: Tensor | None) -> Tensor:
        patches = frames[:, :, self.patches.first : self.patches.stop]
        # Keys and content are a film's, whatever it is asked.
        keys, content = self.key(patches), self.content_of(patches)
        rows, real = self.found(frames, guide, film_of)
        query = self.query(rows)
        if film_of is not None:
            patches, keys, content = patches[film_of], keys[film_of], content[film_of]
        weights = (query @ keys.mT * self.width**-0.5).softmax(dim=-1)
        # The mean over the rows of S·X is that of S, times X.
        context = _mean(weights, real) @ patches
        return torch.cat([context, content], dim=2)

    def content_of(self, patches: Tensor) -> Tensor:
        """Patches (M,T,N,C) → content tokens (M,T,n,C), which no guide changes."""
        if self.content is None:
            return patches
        if not isinstance(self.content, int):
            return patches.mean(dim=2, keepdim=True)
        side = (self.patches.rows, self.patches.columns)
        pictures = patches.flatten(0, 1).mT.unflatten(2, side)
        pooled = F.adaptive_avg_pool2d(pictures, self.content).flatten(2).mT
        return pooled.unflatten(0, patches.shape[:2])

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
        state: FilmSoFar | None = None
        for frame_tokens in frames:
            with torch.no_grad():
                everyone = torch.ones_like(frame_tokens[:, 0, 0], dtype=torch.bool)
                state = self.start(guide, frame_tokens) if state is None else state
                state = self.step(state, frame_tokens, everyone)
            yield state

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
            bank = self.memory.init(frame_tokens[:, 0])
            for t in range(steps):
                bank = self._banked(bank, *film.frame(t))
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

    def _seen(self, state: FilmSoFar) -> Piece:
        """The tokens of all frames, or slots, those that are real in front."""
        if state.visual_bank is None or self.memory is None:
            return joined(state.pieces)
        tokens, real = self.memory.read(state.visual_bank)
        slots, numbers, real = joined([Piece(tokens, real.long(), real)])
        if state.film_of is not None:
            numbers, real = numbers[state.film_of], real[state.film_of]
        return Piece(self.see(slots, state.guide, state.film_of), numbers, real)


def _mean(rows: Tensor, real: Tensor | None) -> Tensor:
    """The mean (V,T,1,N) over rows (V,T,Q,N), those that are real (V,Q)."""
    if real is None:
        return rows.mean(dim=2, keepdim=True)
    share = real / real.sum(dim=1, keepdim=True)
    return (rows * share[:, None, :, None]).sum(dim=2, keepdim=True)


def _longest(mask: Tensor) -> int:
    return int(mask.sum(dim=1).max())


@cache
def _say(stride: int, at_most: int) -> None:
    """Say once what becomes of long films."""
    log.info(
        "films of more than temporal.max_frames=%d frames: every %d. frame is read", at_most, stride
    )


def _check_memory(memory: Memory | None, max_frames: int | None) -> None:
    """Refuse a memory that leaves no patches where they were, or one beside `max_frames`."""
    if memory is not None and max_frames is not None:
        raise ConfigError(
            "temporal.max_frames and temporal.memory both bound what is kept of a film; choose one "
            "and set the other to null"
        )
    if isinstance(memory, TokenMerging):
        raise ConfigError(
            "memory=token_merging merges tokens across places, and temporal=context_content reads "
            "patches where they were; choose memory=merge_adjacent or another"
        )
