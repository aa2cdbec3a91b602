"""Of which frames the looks of a film are, so that texts can stand between them."""

import pytest
import torch

from support import random_batch, tiny_backbone

PER_FRAME = ["temporal=concat", "temporal=context_content", "temporal=every_frame"]


def looks(backbone, batch):
    with torch.no_grad():
        state = backbone.vision.remember(backbone.watch(batch))
        tokens = backbone.video_tokens(state)
    return backbone.vision.looks(state, tokens.shape[1]), tokens.shape[1]


def own(backbone, batch, row):
    """The frames of the looks of one film that are its own."""
    found, _ = looks(backbone, batch)
    length = int(batch.frame_mask[row].sum())
    return [frame for frame in found.frames[row] if frame < length]


@pytest.mark.parametrize("temporal", PER_FRAME)
def test_every_frame_has_a_look_of_its_own(temporal):
    backbone, batch = tiny_backbone(temporal), random_batch((6, 3))
    found, tokens = looks(backbone, batch)
    assert [own(backbone, batch, row) for row in (0, 1)] == [[*range(6)], [*range(3)]]
    assert found.tokens * 6 == tokens
    assert found.span(0, 0, 6) == (0, tokens)
    assert found.span(0, 2, 4) == (2 * found.tokens, 4 * found.tokens)


@pytest.mark.parametrize("temporal", ["memory_qformer", "average", "video_qformer"])
def test_a_look_at_all_frames_is_of_none_of_them(temporal):
    backbone = tiny_backbone(f"temporal={temporal}")
    assert looks(backbone, random_batch())[0] is None


def test_of_a_long_film_the_frames_that_are_read_are_named():
    backbone = tiny_backbone("temporal=context_content", "temporal.max_frames=2")
    batch = random_batch((6, 2))
    assert [own(backbone, batch, row) for row in (0, 1)] == [[0, 4], [0, 1]]


def test_a_slot_of_the_memory_is_of_the_last_frame_in_it():
    backbone = tiny_backbone(
        "temporal=context_content", "+temporal.memory=${memory}", "memory.length=3"
    )
    batch = random_batch((8, 3))
    found, tokens = looks(backbone, batch)
    frames = found.frames[0]
    assert frames == sorted(frames)
    assert frames[-1] == 7
    assert len(frames) * found.tokens == tokens
    assert own(backbone, batch, 1) == [0, 1, 2]


def test_frames_that_a_memory_forgot_have_no_look():
    backbone = tiny_backbone(
        "temporal=context_content", "memory=fifo", "+temporal.memory=${memory}", "memory.length=3"
    )
    batch = random_batch((8, 8))
    frames = looks(backbone, batch)[0].frames[0]
    assert frames == [*range(8 - len(frames), 8)]
