from dataclasses import replace

import pytest
import torch

from support import random_batch


def test_to_moves_every_tensor_and_leaves_the_texts():
    batch = random_batch()
    moved = batch.to("meta")
    assert moved.frames.device.type == "meta"
    assert moved.frame_mask.device.type == "meta"
    assert moved.prompt == batch.prompt
    assert batch.frames.device.type == "cpu"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": None}, "exactly one of frames and features"),
        ({"features": torch.zeros(2, 4, 5, 6)}, "exactly one of frames and features"),
        ({"frames": torch.zeros(2, 4, 3, 8, 8)}, r"frames must be uint8 \(B,T,3,H,W\).*float32"),
        ({"frame_mask": torch.ones(2, 3, dtype=torch.bool)}, r"frame_mask must be .*\(2, 3\)"),
        ({"frame_mask": torch.ones(2, 4)}, "frame_mask must be bool, got torch.float32"),
        ({"prompt": ["one"]}, "prompt must have B=2 entries, got 1"),
        ({"label": torch.zeros(3)}, r"label must be \(B,\)=\(2,\), got \(3,\)"),
        ({"frames": None, "features": torch.zeros(2, 4, 6)}, r"features must be \(B,T,P,Dv\)"),
    ],
)
def test_what_does_not_fit_together_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(random_batch(), **changes)
