"""Films as they are handed to a temporal aggregator.

Shapes: M films, V views of them, T frames, P frame tokens, Dv visual width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmavlm.core.interfaces import TextTokens


@dataclass(frozen=True)
class Watched:
    """Films as the temporal aggregator sees them: frame tokens (M,T,P,Dv), mask (M,T), V guides.

    `film_of` (V,) says which film each guide asks about; None: each about its own.
    """

    frame_tokens: Tensor
    frame_mask: Tensor
    guide: TextTokens
    film_of: Tensor | None = None

    @property
    def films(self) -> Tensor:
        """Which film each view is of, (V,)."""
        if self.film_of is not None:
            return self.film_of
        return torch.arange(len(self.frame_tokens), device=self.frame_tokens.device)

    def newest(self) -> Watched:
        """The newest real frame of each film alone, at the place in time that it has."""
        count = self.frame_mask.sum(dim=1, keepdim=True)
        rows = torch.arange(len(count), device=count.device)[:, None]
        tokens = self.frame_tokens[rows, (count - 1).clamp(min=0)]
        return replace(self, frame_tokens=tokens, frame_mask=count > 0)
