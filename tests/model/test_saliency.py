"""Frames that are re-weighted by the model's own attention."""

import pytest
import torch
from hydra.utils import instantiate

from mmavlm.core.contrast import Contrast
from mmavlm.core.errors import ConfigError
from mmavlm.model.explain import explain
from mmavlm.model.memory_views import NoMemory
from mmavlm.model.saliency import AttentionSaliency
from support import composed, random_batch, rows_of, tiny_backbone

OPTIONS = ["comedy", "a long answer", "drama"]
MEMORIES = ("merge_adjacent", "token_merging", "fifo")


@pytest.fixture(scope="module")
def model():
    return tiny_backbone("memory.length=3").eval()


def weighted(model, batch, **settings):
    return AttentionSaliency(**settings)(model.vision.temporal, model.watch(batch))


@torch.no_grad()
def test_weights_are_the_attention_that_explain_shows(model):
    batch = random_batch((6, 4))
    watched = model.watch(batch)
    found = weighted(model, batch, strength=1.0, of="patches").frame_tokens / watched.frame_tokens
    answers = explain(model, batch, ["comedy", "comedy"], stretches=0)
    for row, told in enumerate(answers):
        share = told.patch_attention
        frames = len(share)
        expected = share / share.mean()
        got = found[row, :frames].nanmedian(dim=-1).values
        torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_all_tokens_of_a_frame_have_its_weight_where_frames_are_weighted(model):
    batch = random_batch((6, 4))
    tokens = model.watch(batch).frame_tokens
    by_patch = (
        (weighted(model, batch, strength=1.0, of="patches").frame_tokens / tokens)
        .nanmedian(dim=-1)
        .values
    )
    by_frame = (weighted(model, batch, strength=1.0).frame_tokens / tokens).nanmedian(dim=-1).values
    mean = by_patch.mean(dim=2, keepdim=True).expand_as(by_patch)
    real = batch.frame_mask[:, :, None].expand_as(mean)
    torch.testing.assert_close(by_frame[real], mean[real], atol=1e-3, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("of", ["frames", "patches"])
def test_strength_0_changes_nothing(model, of):
    batch = random_batch((6, 4))
    watched = model.watch(batch)
    found = weighted(model, batch, strength=0.0, of=of)
    assert torch.equal(found.frame_tokens, watched.frame_tokens)
    assert torch.equal(found.frame_mask, watched.frame_mask)


@torch.no_grad()
def test_even_attention_changes_nothing(model, monkeypatch):
    batch = random_batch((3, 2))  # no slot is merged, so that even slots are even frames

    def even(temporal, state):
        counts = state.visual_bank.counts
        real = (counts > 0).float()
        return (real / real.sum(dim=(1, 2), keepdim=True))[:, None, None]

    monkeypatch.setattr("mmavlm.model.saliency.last_look", even)
    found = weighted(model, batch, strength=1.0, of="patches").frame_tokens
    torch.testing.assert_close(found, model.watch(batch).frame_tokens)


@torch.no_grad()
@pytest.mark.parametrize("memory", MEMORIES)
def test_each_row_of_a_batch_is_answered_as_if_alone_whatever_the_memory(memory):
    model = tiny_backbone(f"memory={memory}", "memory.length=3", "saliency=attention").eval()
    batch, contrast = random_batch((7, 5)), Contrast(view=NoMemory(), beta=0.0)
    for how in (None, contrast):
        alone = torch.cat([model.rank(rows_of(batch, row), OPTIONS, how) for row in (0, 1)])
        together = model.rank(batch, OPTIONS, how)
        torch.testing.assert_close(together, alone, atol=5e-3, rtol=1e-3)
    plain = tiny_backbone(f"memory={memory}", "memory.length=3").eval()
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(plain.rank(batch, OPTIONS), model.rank(batch, OPTIONS), atol=1e-4)


@torch.no_grad()
def test_a_film_of_one_frame_is_read_as_it_is():
    model = tiny_backbone("saliency=attention", "saliency.strength=1").eval()
    batch, plain = random_batch((1, 1)), tiny_backbone().eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.rank(batch, OPTIONS), plain.rank(batch, OPTIONS))


def test_in_training_films_are_read_as_they_are():
    batch = random_batch()
    losses = []
    for name in ("none", "attention"):
        model = tiny_backbone(f"saliency={name}", "qformer.dropout=0").train()
        torch.manual_seed(0)
        losses.append(model(batch)["text"].item())
    assert losses[0] == losses[1]


def test_it_is_a_choice_of_the_group_saliency():
    assert composed().vision.saliency is None
    found = instantiate(composed("saliency=attention").saliency)
    assert found == AttentionSaliency(strength=0.5, of="frames")


@torch.no_grad()
def test_what_has_no_memory_or_no_end_is_refused():
    batch = random_batch()
    average = tiny_backbone("temporal=average", "saliency=attention").eval()
    with pytest.raises(ConfigError, match=r"attention to a memory, and Average has none; choose"):
        average.rank(batch, OPTIONS)
    model = tiny_backbone("saliency=attention").eval()
    with pytest.raises(ConfigError, match=r"a stream is not re-weighted.*set saliency=none"):
        next(iter(model.vision.stream(iter(batch.frames.unbind(1)), ["why?", "who?"])))


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"strength": -1}, "strength"), ({"strength": 1.5}, "strength"), ({"of": "films"}, "of")],
)
def test_settings_that_cannot_be_are_refused_by_name(settings, named):
    with pytest.raises(ConfigError, match=f"saliency.{named}"):
        AttentionSaliency(**settings)
