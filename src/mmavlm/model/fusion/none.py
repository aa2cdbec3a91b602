"""No fusion: plain MMA."""

from __future__ import annotations

from mmavlm.model.fusion.base import Fusion


class NoFusion(Fusion):
    """Both places as they are, without parameters; takes the widths all fusions are given."""

    def __init__(
        self, visual_width: int, query_width: int, aligned_width: int | None = None
    ) -> None:
        super().__init__()
