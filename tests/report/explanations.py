"""An explanation with random numbers, to be drawn."""

import itertools

import numpy as np
import torch

from mmavlm.core.interfaces import PatchGrid
from mmavlm.model.explain import Explanation


def explanation(frames=6, slots=3, stretches=3, **changes):
    torch.manual_seed(0)
    edges = torch.linspace(0, frames, stretches + 1).long().tolist()
    settings = {
        "task": "genre", "video_id": "film", "prompt": "what is the genre?", "answer": "comedy",
        "truth": "comedy", "times_s": torch.arange(frames) / 2,
        "frames": np.random.default_rng(0).integers(0, 255, (frames, 48, 64, 3), np.uint8),
        "slots": torch.rand(slots, frames), "slot_attention": torch.rand(2, 4, slots),
        "frame_attention": torch.rand(2, 4, frames), "log_prob": -0.5,
        "patch_attention": torch.rand(frames, 13).softmax(-1) / frames,
        "patch_grid": PatchGrid(1, 3, 4), "change_when_grey": -1.5,
        "stretches": tuple(itertools.pairwise(edges)), "changes": torch.randn(stretches),
    }  # fmt: skip
    return Explanation(**{**settings, **changes})
