"""The table of learned frame positions, one row a frame (MA-LMM's `image_pe`)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmavlm.core.errors import ConfigError
from mmavlm.core.settings import require_positions

# At 0.4, 1 and 3 an order task of the synthetic films came to 48, 56 and 82 %: docs/benchmarks.md.
SINUSOID_HEIGHT = 5.0


def sinusoids(rows: int, width: int) -> Tensor:
    """Sines and cosines (rows, width) with periods from 4 frames up to 4 tables.

    They are `SINUSOID_HEIGHT` high: frame tokens have unit variance, and a time as faint as that
    is lost beside what they show.
    """
    rate = torch.logspace(0, -math.log10(rows), width // 2) * math.pi / 2
    angle = torch.arange(rows)[:, None] * rate
    table = torch.cat([angle.sin(), angle.cos()], dim=1)
    return SINUSOID_HEIGHT * nn.functional.pad(table, (0, width - table.shape[1]))


NONE = "none"
INITS: dict[str, Callable[[int, int], Tensor]] = {
    "zeros": torch.zeros,
    "sinusoids": sinusoids,
    NONE: torch.zeros,
}


class FramePositions(nn.Embedding):
    """A vector for each of `rows` frames: zeros at the start as published, or sinusoids, or none.

    With "none" nothing is added to a frame, whatever weights are loaded, and nothing learns, as in
    MA-LMM's code with its memory off. Films may then be of any length.

    Only the rows of frames that carry gradient ever learn, so with zeros and `backprop_frames` 1
    the memory cannot tell the order of its slots.

    Raises:
        ConfigError: if `init` is unknown.
    """

    def __init__(self, rows: int, width: int, init: str = "zeros") -> None:
        if init not in INITS:
            raise ConfigError(
                f"vision.position_init={init!r} is unknown; choose one of {', '.join(INITS)}"
            )
        super().__init__(rows, width)
        with torch.no_grad():
            self.weight.copy_(INITS[init](rows, width))
        self.used = init != NONE
        self.weight.requires_grad_(self.used)

    def first(self, frames: int) -> Tensor:
        """The vectors of the first `frames` frames, (frames, Dv); zeros (1, Dv) with none.

        Raises:
            ConfigError: if the table has fewer rows.
        """
        if not self.used:
            return torch.zeros_like(self.weight[:1])
        require_positions(frames, self.num_embeddings)
        return self.weight[:frames]

    def at(self, frame: int) -> Tensor:
        """The vector of one frame of a stream, (1, Dv); all beyond the table take its last row."""
        if not self.used:
            return torch.zeros_like(self.weight[:1])
        row = min(frame, self.num_embeddings - 1)
        return self.weight[row : row + 1]
