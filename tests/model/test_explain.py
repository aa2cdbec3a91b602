import itertools
import json
from dataclasses import replace

import pytest
import torch

from mmavlm.core.batch import Batch
from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.core.interfaces import PatchGrid
from mmavlm.model.explain import explain, log_probs_without, stretch_of_frames, stretches_of
from mmavlm.model.temporal import last_look
from mmavlm.report.findings import findings
from support import random_batch, rows_of, tiny_backbone

ANSWERS = ["comedy", "a long answer"]
MEMORIES = ["merge_adjacent", "fifo", "average", "none", "episodic", "token_merging"]


def backbone(memory="merge_adjacent", *overrides):
    return tiny_backbone(f"memory={memory}", "memory.length=2", *overrides).eval()


@pytest.mark.parametrize("memory", MEMORIES)
def test_attention_over_slots_and_over_frames_adds_up_to_one_for_every_query(memory):
    for explained, frames in zip(
        explain(backbone(memory), random_batch((6, 3)), ANSWERS, stretches=3), (6, 3), strict=True
    ):
        layers, queries, slots = explained.slot_attention.shape
        assert explained.frame_attention.shape == (layers, queries, frames)
        assert explained.slots.shape == (slots, frames)
        for attention in (explained.slot_attention, explained.frame_attention):
            torch.testing.assert_close(attention.sum(-1), torch.ones(layers, queries))
        torch.testing.assert_close(
            explained.patch_attention.sum(dim=1), explained.frame_attention.mean(dim=(0, 1))
        )


def test_attention_planted_at_one_patch_of_a_slot_lies_there_in_the_frames_it_holds(monkeypatch):
    model, batch = backbone(), random_batch((9, 9))
    slot, patch = 1, 6

    def planted(temporal, state):
        look = torch.zeros_like(last_look(temporal, state))
        look[..., slot, patch] = 1
        return look

    monkeypatch.setattr("mmavlm.model.explain.last_look", planted)
    with torch.no_grad():
        tokens = model.watch(batch).frame_tokens
    for row, explained in enumerate(explain(model, batch, ANSWERS, stretches=0)):
        held = merged_frames(tokens[row, :, patch], 2)[slot]
        expected = torch.zeros(9, tokens.shape[2])
        expected[held, patch] = 1 / len(held)
        torch.testing.assert_close(explained.patch_attention, expected)
        assert explained.patch_grid == PatchGrid(0, 4, 4)


def test_a_grid_that_does_not_fit_the_tokens_is_refused():
    model = backbone()
    model.vision.encoder.patch_grid = PatchGrid(1, 4, 4)
    with pytest.raises(ConfigError, match=r"TinyEncoder.patch_grid .* does not fit the 16 tokens"):
        explain(model, random_batch((4,)), ["comedy"], stretches=0)


@pytest.mark.parametrize("memory", [m for m in MEMORIES if m != "fifo"])
def test_every_frame_lies_in_the_slots_as_a_whole(memory):
    (explained,) = explain(backbone(memory), random_batch((7,)), ["comedy"], stretches=0)
    torch.testing.assert_close(explained.slots.sum(dim=0), torch.ones(7))


def test_what_was_forgotten_lies_in_no_slot():
    (explained,) = explain(backbone("fifo"), random_batch((7,)), ["comedy"], stretches=0)
    assert torch.equal(explained.slots.sum(dim=0), torch.tensor([0.0] * 4 + [1.0] * 3))


def merged_frames(tokens, length):
    """The frames (T,D) of one position that each slot holds, by lists, compressed before each."""
    bank = []
    for t, _token in enumerate(tokens):
        if len(bank) > length:
            means = [torch.stack([tokens[f] for f in frames]).mean(0) for frames in bank]
            alike = [
                float(torch.cosine_similarity(a.double(), b.double(), dim=0))
                for a, b in itertools.pairwise(means)
            ]
            k = alike.index(max(alike))
            bank[k : k + 2] = [bank[k] + bank[k + 1]]
        bank.append([t])
    return bank


def test_a_slot_holds_the_frames_whose_tokens_were_merged_into_it():
    model, batch = backbone(), random_batch((9,))
    (explained,) = explain(model, batch, ["comedy"], stretches=0)
    with torch.no_grad():
        tokens = model.watch(batch).frame_tokens[0]
    expected = torch.zeros(3, 9)
    for position in tokens.unbind(dim=1):
        for slot, frames in enumerate(merged_frames(position, 2)):
            expected[slot, frames] += 1 / tokens.shape[1]
    torch.testing.assert_close(explained.slots, expected)


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_film_is_explained_alike_alone_and_beside_longer_ones(memory):
    model, batch = backbone(memory), random_batch((3, 7))
    together = explain(model, batch, ANSWERS, stretches=3)
    for row, explained in enumerate(together):
        (alone,) = explain(model, rows_of(batch, row), [ANSWERS[row]], stretches=3)
        assert alone.stretches == explained.stretches
        assert alone.change_when_grey == pytest.approx(explained.change_when_grey, abs=1e-5)
        for name in (
            "times_s", "slots", "slot_attention", "frame_attention", "patch_attention", "changes",
        ):  # fmt: skip
            torch.testing.assert_close(
                getattr(alone, name), getattr(explained, name), atol=1e-5, rtol=1e-4
            )
        assert (alone.frames == explained.frames).all()


def test_a_grey_film_is_the_same_when_grey():
    batch = random_batch((5, 3))
    grey = replace(batch, frames=torch.full_like(batch.frames, 128))
    for explained in explain(backbone(), grey, ANSWERS, stretches=2):
        assert explained.change_when_grey == pytest.approx(0, abs=1e-5)
        assert not any("times" in sentence for sentence in findings(explained))
    (unhidden,) = explain(backbone(), random_batch((4,)), ["comedy"], stretches=0)
    assert unhidden.change_when_grey is None


def test_hiding_nothing_changes_nothing():
    model, batch = backbone(), random_batch((6, 3))
    hidden = torch.zeros(2, 2, 6, dtype=torch.bool)
    with torch.no_grad():
        scores = log_probs_without(model, model.watch(batch), batch, ANSWERS, hidden)
    assert torch.equal(scores[1] - scores[0], torch.zeros(2))


def test_a_change_is_the_log_probability_without_the_stretch_less_that_with_it():
    model, batch = backbone(), random_batch((6, 4))
    for row, explained in enumerate(explain(model, batch, ANSWERS, stretches=2)):
        whole = model.rank(batch, [ANSWERS[row]])[row, 0]
        assert explained.log_prob == pytest.approx(float(whole), abs=1e-4)
        for (first, stop), change in zip(explained.stretches, explained.changes, strict=True):
            mask = batch.frame_mask.clone()
            mask[row, first:stop] = False
            without = model.rank(replace(batch, frame_mask=mask), [ANSWERS[row]])[row, 0]
            torch.testing.assert_close(change, without - whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("frames", "stretches"), [(8, 8), (7, 3), (5, 2), (100, 8)])
def test_stretches_are_runs_of_about_the_same_length_that_cover_the_film(frames, stretches):
    mask = torch.arange(frames + 2)[None] < frames
    stretch = stretch_of_frames(mask, stretches)[0]
    assert stretch[frames:].tolist() == [-1, -1]
    assert (stretch[:frames].diff() >= 0).all()
    sizes = stretch[:frames].bincount()
    assert len(sizes) == stretches
    assert sizes.max() - sizes.min() <= 1


def test_a_film_of_few_frames_is_cut_into_as_many_stretches():
    assert [stretches_of(frames) for frames in (1, 2, 5, 100)] == [0, 2, 5, 8]


def lit_films(count, lit, size=64):
    """Films of 8 dark frames, of which two, from `lit` (B,) on, are red or blue by turns."""
    frames = torch.zeros(count, 8, 3, size, size, dtype=torch.uint8)
    rows = torch.arange(count)
    for t in (0, 1):
        frames[rows, lit + t, (rows % 2) * 2] = 255
    text = ["red" if row % 2 == 0 else "blue" for row in range(count)]
    names = [f"film {row}" for row in range(count)]
    return Batch.questions(
        frames=frames,
        frame_mask=torch.ones(count, 8, dtype=torch.bool),
        timestamps_s=torch.arange(8.0).expand(count, 8),
        prompt=["which colour?"] * count,
        target=text,
        video_id=names,
        item_id=names,
        task=["colour"] * count,
    )


def test_hiding_the_only_stretch_that_shows_the_answer_makes_it_less_probable():
    model = tiny_backbone("memory=none", "alignment=none")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(60):
        batch = lit_films(8, 2 * torch.randint(0, 4, (8,), generator=draw))
        loss = model(batch, align=False)["text"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05
    films = lit_films(8, torch.tensor([0, 0, 2, 2, 4, 4, 6, 6]))
    explained = explain(model.eval(), films, films.target, stretches=4)
    changes = torch.stack([e.changes for e in explained])
    assert changes.argmin(dim=1).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    # in the dark the two colours share what there is, so one of them has lost half of it at least
    assert (changes.min(dim=1).values.view(4, 2).min(dim=1).values < -0.6).all()
    grey = torch.tensor([e.change_when_grey for e in explained])
    assert (grey.view(4, 2).min(dim=1).values < -0.6).all()


def test_a_model_of_cached_features_is_explained_without_frames():
    model, batch = backbone(), random_batch((4, 2))
    with torch.no_grad():
        features = model.vision.encode(batch.frames)
    cached = replace(batch, frames=None, features=features)
    seen, told = (explain(model, b, ANSWERS, stretches=2)[0] for b in (batch, cached))
    assert told.frames is None
    assert told.change_when_grey is None
    torch.testing.assert_close(told.frame_attention, seen.frame_attention)


def test_an_explanation_becomes_plain_values_without_its_frames():
    (explained,) = explain(backbone(), random_batch((4,)), ["comedy"], stretches=2)
    told = explained.as_dict()
    assert "frames" not in told
    assert told["stretches"] == ((0, 2), (2, 4))
    assert told["patch_grid"] == {"first": 0, "rows": 4, "columns": 4}
    assert json.loads(json.dumps(told))["patch_attention"] == told["patch_attention"]
    assert torch.equal(torch.tensor(told["slots"]), explained.slots)


@pytest.mark.parametrize(
    ("stretches", "message"),
    [
        (3, r"v1 was given to the model as 2 frames, .* 3 stretches; take 2 to 2 of them"),
        (1, r"v0 was given to the model as 4 frames, which cannot be cut into 1 stretches"),
        (-2, r"cannot be cut into -2 stretches"),
    ],
)
def test_stretches_that_cannot_be_cut_are_refused_by_film(stretches, message):
    with pytest.raises(ConfigError, match=message):
        explain(backbone(), random_batch((4, 2)), ANSWERS, stretches=stretches)


def test_an_empty_answer_and_a_film_without_frames_are_named():
    model, batch = backbone(), random_batch((4, 2))
    with pytest.raises(ConfigError, match="the answer about v1 is empty"):
        explain(model, batch, ["comedy", " "], stretches=2)
    mask = batch.frame_mask & torch.tensor([[True], [False]])
    with pytest.raises(VideoError, match="v1 has no frames"):
        explain(model, replace(batch, frame_mask=mask), ANSWERS, stretches=2)
    with pytest.raises(ValueError, match="2 rows need as many answers, got 1"):
        explain(model, batch, ["comedy"])


def test_a_model_without_an_llm_is_refused():
    model = tiny_backbone("experiment=demo_alignment", "data.root=.").eval()
    with pytest.raises(ConfigError, match="built without an LLM"):
        explain(model, random_batch((4,)), ["comedy"], stretches=2)
