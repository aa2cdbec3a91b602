"""Decoding against what is remembered otherwise of the same film."""

from dataclasses import replace

import pytest
import torch
from hydra.utils import instantiate

from mmavlm.core.contrast import Contrast
from mmavlm.core.errors import ConfigError
from mmavlm.core.generation import Generation
from mmavlm.model.memory_views import NoMemory, ShuffledMemory
from support import composed, random_batch, rows_of, tiny_backbone

OPTIONS = ["comedy", "a long answer", "drama"]
WITH_SLOTS = ("temporal=every_frame", "temporal.memory=${memory}", "memory.length=3")
MODELS = {
    "no_memory": ((), NoMemory()),
    "no_memory_of_slots": (WITH_SLOTS, NoMemory()),
    "shuffled_memory": (WITH_SLOTS, ShuffledMemory()),
}


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    overrides, view = MODELS[request.param]
    return tiny_backbone(*overrides).eval(), Contrast(view=view)


@pytest.mark.parametrize("view", [NoMemory(), ShuffledMemory()])
def test_each_view_of_a_memory_is_a_choice_of_the_group_contrast(view):
    name = {NoMemory: "no_memory", ShuffledMemory: "shuffled_memory"}[type(view)]
    found = instantiate(composed(f"contrast={name}").stage.contrast)
    assert found == Contrast(view=view, alpha=1.0, beta=0.1)


@torch.no_grad()
def test_each_row_of_a_batch_is_answered_as_if_alone(case):
    model, contrast = case
    batch = random_batch((7, 5))
    alone = torch.cat([model.rank(rows_of(batch, row), OPTIONS, contrast) for row in (0, 1)])
    together = model.rank(batch, OPTIONS, contrast)
    torch.testing.assert_close(together, alone, atol=5e-3, rtol=1e-4)
    settings = Generation(num_beams=3, max_new_tokens=4)
    assert len(model.generate(batch, settings, contrast)) == 2


@torch.no_grad()
def test_frames_are_encoded_once_and_remembered_otherwise(case, monkeypatch):
    model, contrast = case
    encoded, encode = [], model.vision.encode
    monkeypatch.setattr(
        model.vision, "encode", lambda frames: encoded.append(len(frames)) or encode(frames)
    )
    media, against = model.seen(random_batch((7, 5)), contrast)
    assert encoded == [2]
    other = against.media.tokens
    assert other.shape != media.tokens.shape or not torch.equal(other, media.tokens)


@torch.no_grad()
def test_without_memory_the_newest_frame_is_seen_at_its_own_place_in_time():
    model = tiny_backbone("vision.position_init=sinusoids").eval()
    batch = random_batch((6, 3))
    _, against = model.seen(batch, Contrast(view=NoMemory()))
    watched = model.watch(batch)
    temporal = model.vision.temporal
    for row, newest in enumerate((5, 2)):
        guide = model.vision.encoded_guides([batch.views.guides[row]])
        frame = watched.frame_tokens[row : row + 1, newest]
        state = temporal.step(temporal.start(guide, frame), frame, torch.tensor([True]))
        expected = model.video_tokens(state)[0]
        torch.testing.assert_close(against.media.tokens[row], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_film_of_one_frame_is_remembered_alike_in_both_ways():
    model = tiny_backbone().eval()
    batch = random_batch((1, 1))
    plain = model.rank(batch, OPTIONS)
    found = model.rank(batch, OPTIONS, Contrast(view=NoMemory(), beta=0.0))
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_a_shuffled_memory_holds_the_same_slots_in_another_order():
    model = tiny_backbone(*WITH_SLOTS).eval()
    watched = model.watch(random_batch((7, 2)))
    state = model.vision.remember(watched)
    other = ShuffledMemory(seed=3).remember(model.vision, watched, state)
    for old, new in zip(state.visual_bank.tokens, other.visual_bank.tokens, strict=True):
        before, after = ([slot.tolist() for slot in slots] for slots in (old, new))
        assert before != after
        assert sorted(before) == sorted(after)
    real = state.visual_bank.counts[:, :, 0] > 0
    assert torch.equal(other.visual_bank.counts[:, :, 0] > 0, real), "empty slots stay"


@torch.no_grad()
def test_a_batch_that_shows_nothing_is_answered_as_without_contrast():
    model = tiny_backbone().eval()
    batch = random_batch((2, 2))
    talks = [replace(t, media=(), turns=_without_film(t)) for t in batch.conversations]
    batch = replace(
        batch, conversations=talks, media_rows=[(), ()], frames=None,
        frame_mask=batch.frame_mask[:0, :0], timestamps_s=batch.timestamps_s[:0, :0],
    )  # fmt: skip
    found = model.rank(batch, OPTIONS, Contrast(view=NoMemory(), beta=0.0))
    torch.testing.assert_close(found, model.rank(batch, OPTIONS), atol=1e-4, rtol=1e-5)


def _without_film(talk):
    return tuple(
        replace(turn, parts=tuple(p for p in turn.parts if isinstance(p, str)))
        for turn in talk.turns
    )


@pytest.mark.parametrize(
    ("overrides", "view", "said"),
    [
        (("temporal=average",), NoMemory(), "contrast=no_memory is of a memory, and Average keeps"),
        (("temporal=every_frame",), ShuffledMemory(), "EveryFrame keeps none; choose temporal="),
        ((), ShuffledMemory(), "MemoryQFormer attends to the slots of its memory in no order"),
    ],
)
def test_a_model_without_such_a_memory_is_refused(overrides, view, said):
    with pytest.raises(ConfigError, match=said):
        tiny_backbone(*overrides).eval().seen(random_batch(), Contrast(view=view))
