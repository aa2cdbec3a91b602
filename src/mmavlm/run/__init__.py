"""One stage of one experiment, from a composed config to the files it leaves."""

from typing import TYPE_CHECKING

from mmavlm.core.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.run.build import build_backbone, start_from_alignment
    from mmavlm.run.run import Run, tested_splits

__all__ = ["Run", "build_backbone", "start_from_alignment", "tested_splits"]

__getattr__, __dir__ = lazy_names(__name__)
