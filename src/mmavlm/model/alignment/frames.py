"""Which frames of a film are aligned with its text (MMA, ablation on aligned frames)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mmavlm.core.errors import ConfigError


class AlignedFrames(Protocol):
    """A choice of frames: some leading ones, and perhaps the middle and the last one."""

    @property
    def uses_middle(self) -> bool:
        """Whether frame T//2 of a film of T frames is aligned too."""

    @property
    def uses_last(self) -> bool:
        """Whether the last real frame is aligned too."""

    @property
    def beyond_first(self) -> bool:
        """Whether frames are aligned that come after others which are not."""

    def prefix(self, num_frames: int) -> int:
        """How many of `num_frames` leading frames are aligned."""


class _Frames:
    """What follows from the rest."""

    uses_middle: bool
    uses_last: bool

    @property
    def beyond_first(self) -> bool:
        """Whether frames are aligned that come after others which are not."""
        return self.uses_middle or self.uses_last


@dataclass(frozen=True)
class FirstK(_Frames):
    """The first `k` frames; three as in the paper, more brought nothing there.

    Raises:
        ConfigError: if `k` is below 1.
    """

    k: int = 3
    uses_middle: bool = False
    uses_last: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(
                f"alignment.frames.k is {self.k}; give the number of leading frames to align, "
                "1 or more"
            )

    def prefix(self, num_frames: int) -> int:
        """The first k of `num_frames`, or all of a shorter film."""
        return min(self.k, num_frames)


@dataclass(frozen=True)
class FirstLast(_Frames):
    """The first frame and the last one; MMA's published code in stage 1."""

    uses_middle: bool = False
    uses_last: bool = True

    def prefix(self, num_frames: int) -> int:
        """The first of `num_frames`."""
        return min(1, num_frames)


@dataclass(frozen=True)
class FirstMiddleLast(_Frames):
    """Frames 0, T//2 and T−1, each once; MMA's published code in stage 2."""

    uses_middle: bool = True
    uses_last: bool = True

    def prefix(self, num_frames: int) -> int:
        """The first of `num_frames`."""
        return min(1, num_frames)


@dataclass(frozen=True)
class AllFrames(_Frames):
    """Every frame; each carries gradient, so activation memory grows with the film."""

    uses_middle: bool = False
    uses_last: bool = False

    def prefix(self, num_frames: int) -> int:
        """All of `num_frames`."""
        return num_frames
