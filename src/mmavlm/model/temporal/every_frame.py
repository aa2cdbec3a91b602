"""Every frame's patches, projected and pooled, whatever is asked: no loop and no guide (MMDuet).

Projection and pooling are LLaVA-OneVision's (arXiv 2408.03326), which MMDuet (arXiv 2411.17991)
begins from. Shapes: M films, V views of them, T frames, P frame tokens of width C, N of them
patches, K tokens of a frame, Dl LLM width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmavlm.core.errors import ConfigError
from mmavlm.core.footprint import FilmSizes, Phase, QFormerSizes, pooled_phase
from mmavlm.core.interfaces import Memory, PatchGrid, TextTokens
from mmavlm.core.settings import whole_at_least
from mmavlm.model.temporal.kept_frames import KeptFrames
from mmavlm.model.temporal.patch_tokens import pooled

POOLS = ("area", "bilinear")


class EveryFrame(KeptFrames):
    """The patches of each frame; the projector makes ceil(rows/stride)·ceil(columns/stride) tokens.

    `pool` is `area`, the mean over each field of patches, or `bilinear`, as published, which reads
    the patches in the middle of each field alone. `frames_at_once` bounds what is held without
    gradient and changes no result. `memory` and `max_frames` as in `KeptFrames`.

    Raises:
        ConfigError: if a setting is none of these, or they cannot stand together.
    """

    patches: PatchGrid
    guide_positions: int | None = None  # reads no guide

    def __init__(
        self,
        *,
        visual_width: int,
        vocab_size: int,
        stride: int = 4,
        pool: str = "area",
        memory: Memory | None = None,
        max_frames: int | None = None,
        frames_at_once: int = 64,
    ) -> None:
        super().__init__()
        whole_at_least("temporal", 1, stride=stride, frames_at_once=frames_at_once)
        if pool not in POOLS:
            raise ConfigError(f"temporal.pool is {pool!r}; choose {' or '.join(POOLS)}")
        self.bound(memory, max_frames)
        self.width = visual_width
        self.stride = stride
        self.pool = pool
        self.frames_at_once = frames_at_once

    def take_patches(self, grid: PatchGrid) -> None:
        """Take which of the frame tokens are patches.

        Raises:
            ConfigError: if a field of `stride` patches a side is larger than the picture.
        """
        if self.stride > min(grid.rows, grid.columns):
            raise ConfigError(
                f"temporal.stride={self.stride} is the side of a field of patches, and the encoder "
                f"gives {grid.rows} x {grid.columns} of them; choose a smaller one"
            )
        self.patches = grid

    @property
    def num_queries(self) -> int:
        """N: a look is all patches of a frame."""
        return self.patches.rows * self.patches.columns

    @property
    def fields(self) -> tuple[int, int]:
        """Rows and columns of tokens that the projector makes of a frame."""
        return -(-self.patches.rows // self.stride), -(-self.patches.columns // self.stride)

    def tokens_a_look(self) -> int:
        """K."""
        rows, columns = self.fields
        return rows * columns

    def projector(self, llm_width: int) -> PooledProjector:
        """What takes the patches (V,looks·N,C) to tokens (V,looks·K,Dl)."""
        return PooledProjector(self, llm_width)

    def embed_prompt(self, prompt: TextTokens) -> Tensor:
        """No guide is read: (B,0,C)."""
        return torch.zeros(len(prompt.ids), 0, self.width, device=prompt.ids.device)

    def sizes(self, guide_tokens: int, at_most: int) -> QFormerSizes:
        """There is no Q-Former."""
        return QFormerSizes(
            positions=0, queries=0, width=self.width, hidden=0, layers=0, crossing=0, slots=0
        )

    def phase(self, film: FilmSizes, reader: QFormerSizes, llm_width: int) -> Phase:
        """What is held of the looks at frames, and of their projection."""
        return pooled_phase(film, self.num_queries, llm_width, pool=self.pool)

    def see(self, frames: Tensor, guide: TextTokens, film_of: Tensor | None = None) -> Tensor:
        """Frames (M,T,P,C) → their patches (V,T,N,C)."""
        patches = frames[:, :, self.patches.first : self.patches.stop]
        return patches if film_of is None else patches[film_of]


class PooledProjector(nn.Sequential):
    """Patches → two layers with a GELU between (mlp2x_gelu) → the mean over fields of them.

    Means are taken in front of the second layer: it is affine and their weights add up to 1, so the
    tokens are those of pooling at the end, and the layer works on a field, not on each patch.
    """

    def __init__(self, of: EveryFrame, llm_width: int) -> None:
        super().__init__(nn.Linear(of.width, llm_width), nn.GELU(), nn.Linear(llm_width, llm_width))
        self.grid = of.patches
        self.fields = of.fields
        self.pool = of.pool
        self.frames_at_once = of.frames_at_once

    def forward(self, looks: Tensor) -> Tensor:
        """(V,looks·N,C) → (V,looks·K,Dl)."""
        frames = looks.unflatten(1, (-1, self.grid.rows * self.grid.columns))
        some = frames.flatten(0, 1).split(self.frames_at_once)
        hidden = torch.cat([self._hidden(part) for part in some])
        return self[2](hidden).unflatten(0, frames.shape[:2]).flatten(1, 2)

    def _hidden(self, frames: Tensor) -> Tensor:
        """Frames (F,N,C) → the means over their fields between the layers, (F,K,Dl)."""
        return pooled(self[1](self[0](frames)), self.grid, self.fields, self.pool)
