"""Tokens made of a frame's patches, one of them under a guide, for all frames of a film.

What reads guide and frame, a subclass says (`context_content`). Shapes: M films, V guides about
them, T frames, P frame tokens of width C, N of them patches, Q rows that read a frame, D their
width, n content tokens, K = n+1.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import TypedDict, Unpack

from mmavlm.core.errors import ConfigError
from mmavlm.core.footprint import FilmSizes, Phase, QFormerSizes, patches_phase
from mmavlm.core.interfaces import Memory, PatchGrid, TextTokens
from mmavlm.core.settings import whole_at_least
from mmavlm.model.temporal.kept_frames import KeptFrames
from mmavlm.model.temporal.token_projector import TokenProjector


class PatchSettings(TypedDict, total=False):
    """Settings of `PatchTokens`: what is made of a frame, and of which frames."""

    content: str | int | None  # "mean"; the side of a grid; None: every patch
    projector: str  # mlp2x_gelu, see `TokenProjector`
    memory: Memory | None  # None; a bank of frames, whose slots are read in their place
    max_frames: int | None  # None; of longer films so many at most are read, see `spacing`
    frames_at_once: int  # 64; bounds what is held without gradient, changes no result
    train_context: bool  # True; False freezes the three projections of the context token


class PatchTokens(KeptFrames):
    """A token of what the guide asks for and some of all that is there, for every frame.

    What the rows of a reader find in the patches X (N,C) is the context token: the mean over rows
    of softmax(QKᵀ/√C)·X, with Q projected from the rows and K from the patches (LLaMA-VID,
    arXiv 2311.17043, section 3). The content tokens are the patches, or means of them.

    Raises:
        ConfigError: if a setting is none of these, or they cannot stand together.
    """

    patches: PatchGrid

    def make(self, reader_width: int, width: int, **settings: Unpack[PatchSettings]) -> None:
        """Make the parts that need no reader; a subclass calls this when it has one."""
        self.content = settings.get("content", "mean")
        self.projector_kind = settings.get("projector", "mlp2x_gelu")
        self.bound(settings.get("memory"), settings.get("max_frames"))
        self.frames_at_once = settings.get("frames_at_once", 64)
        self.train_context = settings.get("train_context", True)
        if self.content != "mean":
            whole_at_least("temporal", 1, content=self.content)
        whole_at_least("temporal", 1, frames_at_once=self.frames_at_once)
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

    def tokens_a_look(self) -> int:
        """K, each projected for itself."""
        return self.num_queries

    def phase(self, film: FilmSizes, reader: QFormerSizes, llm_width: int) -> Phase:
        """What is held of the rows that attend to the patches of frames."""
        return patches_phase(film, reader.queries)

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
        return pooled(patches, self.patches, (self.content, self.content), "area")


def pooled(patches: Tensor, grid: PatchGrid, fields: tuple[int, int], mode: str) -> Tensor:
    """Patches (…,N,C) → a mean over each of so many rows and columns of fields, (…,fields,C).

    `mode` is torch's: `area` counts all patches of a field, `bilinear` those in its middle.
    """
    pictures = patches.flatten(0, -3).mT.unflatten(2, (grid.rows, grid.columns))
    means = F.interpolate(pictures, size=fields, mode=mode).flatten(2).mT
    return means.unflatten(0, patches.shape[:-2])


def _mean(rows: Tensor, real: Tensor | None) -> Tensor:
    """The mean (V,T,1,N) over rows (V,T,Q,N), those that are real (V,Q)."""
    if real is None:
        return rows.mean(dim=2, keepdim=True)
    share = real / real.sum(dim=1, keepdim=True)
    return (rows * share[:, None, :, None]).sum(dim=2, keepdim=True)
