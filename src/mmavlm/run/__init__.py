"""One stage of one experiment, from a composed config to the files it leaves."""

from mmavlm.run.run import Run, build_backbone, start_from_alignment

__all__ = ["Run", "build_backbone", "start_from_alignment"]
