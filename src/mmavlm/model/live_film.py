"""A film as it runs: what the language model sees of each frame, as it comes.

Shapes: K tokens of a look, Dl LLM width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mmavlm.core.errors import ConfigError
from mmavlm.model.branches import Branch
from mmavlm.model.fusion import Seen
from mmavlm.model.temporal.looks import Wanted

MANY = 1_000_000  # frames, of which each has to have tokens of its own


class LiveFilm:
    """One film, seen frame by frame under a guide, in constant memory and time.

    The tokens are those of `Branch.newest_looks`. With `latest` they are of all frames so far, as a
    memory's are; else of the frame alone.

    Raises:
        ConfigError: if tokens of frames depend on later ones, or a fusion acts on looks of a
            memory.
    """

    def __init__(self, branch: Branch, guide: str) -> None:
        temporal, name = branch.temporal, type(branch.temporal).__name__
        self.latest = temporal.looks_at(MANY) == 1
        if not self.latest and temporal.looks_at(MANY) != MANY:
            raise ConfigError(
                f"{name} leaves frames out of a long film, and each is to be scored while it runs; "
                "choose temporal.max_frames=null temporal.memory=null, or temporal=memory_qformer"
            )
        whole = branch.fusion.acts and (self.latest or branch.fusion.reads_aligned)
        if branch.projector is None or whole:
            raise ConfigError(
                f"fusion {type(branch.fusion).__name__} sees a film as a whole, and here it is "
                "watched while it runs; choose fusion=none"
            )
        self._branch = branch
        self._guide = branch.encoded_guides([guide])
        self._frames = 0
        self._frame: Tensor | None = None
        self._states = temporal.stream(self._guide, self._as_they_come())

    def see(self, frame: Tensor) -> Tensor:
        """What is seen (K,Dl) once the next frame, uint8 (3,H,W), has come."""
        self._frame = frame
        found = self._newest() if self.latest else self._alone()
        return found[0]

    @torch.no_grad()
    def _newest(self) -> Tensor:
        branch, state = self._branch, next(self._states, None)
        if state is None:
            raise RuntimeError(
                "the film's memory was lost in an error before; begin with a new LiveFilm"
            )
        assert branch.projector is not None  # checked when this was made
        return branch.projector(branch.temporal.read(state))

    @torch.no_grad()
    def _alone(self) -> Tensor:
        # Each frame is a film of one: nothing of those before is kept.
        branch, tokens = self._branch, next(self._as_they_come())
        there = torch.ones(1, 1, dtype=torch.bool, device=tokens.device)
        looks = branch.temporal.look(tokens[:, None], self._guide, there, Wanted(1))[1]
        assert branch.projector is not None  # checked when this was made
        return branch.projector(branch.fusion.after(looks.outputs.flatten(0, 1), Seen(None, None)))

    def _as_they_come(self) -> Iterator[Tensor]:
        """Frame tokens (1,P,Dv) of the frame that is there when they are asked for."""
        while self._frame is not None:
            frame, self._frame = self._frame, None
            number, self._frames = self._frames, self._frames + 1
            yield self._branch.see(frame[None], number, self._guide)
