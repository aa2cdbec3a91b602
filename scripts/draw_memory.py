"""Draw which frames the slots of a memory bank hold: `python scripts/draw_memory.py`.

The film has three scenes of unlike frames; within a scene frames change a little.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from mmavlm.model.memory import MergeAdjacent, slot_spans

SCENES = (11, 4, 9)  # frames each
CHANGE = 0.35  # how far frames of a scene are apart, against scenes
WIDTH = 64
SLOTS = 6


def film(seed: int) -> tuple[Tensor, list[int]]:
    """Frame tokens (1,T,1,D) of a film, and the scene of each frame."""
    generator = torch.Generator().manual_seed(seed)
    scenes = torch.randn(len(SCENES), WIDTH, generator=generator)
    scene_of = [scene for scene, frames in enumerate(SCENES) for _ in range(frames)]
    drift = torch.randn(len(scene_of), WIDTH, generator=generator).mul(CHANGE)
    return (scenes[scene_of] + drift)[None, :, None], scene_of


def banks(frames: Tensor) -> list[list[tuple[int, int]]]:
    """First frame and last (exclusive) of each slot, after each frame."""
    memory = MergeAdjacent(length=SLOTS)
    state, mask = memory.init(frames[:, 0]), torch.ones(1, dtype=torch.bool)
    found = []
    for frame in frames.unbind(1):
        state = memory.compress(memory.append(state, frame, mask))
        first, last = (bound[0, :, 0].tolist() for bound in slot_spans(state))
        found.append(list(zip(first, last, strict=True)))
    return found


def draw(to: Path, seed: int = 0) -> None:
    """Draw the banks of a film, a row a frame, in the colours of its scenes."""
    frames, scene_of = film(seed)
    colours = plt.get_cmap("Set2").colors  # type: ignore[attr-defined]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for number, slots in enumerate(banks(frames)):
        for first, last in slots:
            middle = scene_of[(first + last - 1) // 2]
            axes.barh(number, last - first - 0.12, left=first, height=0.8, color=colours[middle])
    axes.set(xlabel="frames of the film that a slot holds", ylabel="after frame")
    axes.set(xlim=(0, len(scene_of)), ylim=(len(scene_of), -1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(to, metadata={"Date": None} if to.suffix == ".svg" else None)


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--to", type=Path, default=Path("docs/memory_bank.svg"))
    draw(parser.parse_args().to)


if __name__ == "__main__":
    main()
