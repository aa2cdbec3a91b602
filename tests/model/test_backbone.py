from dataclasses import replace

import psutil
import pytest
import torch

from mmavlm.core.errors import ConfigError
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import MediaTokens
from mmavlm.model.alignment import AllFrames, FirstK, FirstLast, FirstMiddleLast
from mmavlm.model.temporal import Wanted
from support import random_batch, rows_of, tiny_backbone

FUSIONS = [
    "none", "prompt_to_visual", "query_to_visual", "bidirectional", "cross_attention",
    "feature_channel", "sequence_dimension",
]  # fmt: skip
SHORT = Generation(max_new_tokens=4)
MEMORIES = ["merge_adjacent", "fifo", "average", "none", "episodic", "token_merging"]


def ranked(model, state, batch):
    """What the language model ranks first of films as they stand in a state."""
    media = MediaTokens(model.video_tokens(state), [1] * len(batch))
    return model.llm.rank(batch.conversations, media, ["comedy", "action"])


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("memory", MEMORIES)
def test_each_row_of_a_batch_is_answered_as_if_alone(fusion, memory):
    model = tiny_backbone(f"fusion={fusion}", f"memory={memory}", "memory.length=2").eval()
    batch = random_batch((5, 2))
    with torch.no_grad():
        together = model.rank(batch, ["comedy", "a long answer"])
        alone = [model.rank(rows_of(batch, row), ["comedy", "a long answer"]) for row in (0, 1)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fusion", ["none", "sequence_dimension", "feature_channel"])
def test_without_memory_each_row_is_answered_as_if_alone(fusion):
    """Films of 5 and of 2 frames give 5 and 2 looks; a fusion acts on each look."""
    model = tiny_backbone("temporal=concat", "vision.position_init=none", f"fusion={fusion}")
    model.eval()
    batch = random_batch((5, 2))
    with torch.no_grad():
        seen = model.media_tokens(batch)
        tokens, mask = seen.tokens, seen.mask
        together = model.rank(batch, ["comedy", "a long answer"])
        alone = [model.rank(rows_of(batch, row), ["comedy", "a long answer"]) for row in (0, 1)]
        said = [[a.text for a in row] for row in model.generate(batch, SHORT)]
        alone_said = [
            [a.text for a in model.generate(rows_of(batch, row), SHORT)[0]] for row in (0, 1)
        ]
    look = 8 + (fusion == "sequence_dimension")
    assert tokens.shape[1] == 5 * look == model.vision.num_tokens(5)
    assert mask.sum(1).tolist() == [5 * look, 2 * look]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)
    assert said == alone_said


def test_without_memory_a_fusion_that_reads_the_bank_says_so():
    model = tiny_backbone("temporal=concat", "fusion=query_to_visual")
    with pytest.raises(ConfigError, match=r"reads the visual bank, .* choose temporal="):
        model(random_batch())


def test_ranking_and_loss_go_through_the_same_path():
    model = tiny_backbone("alignment=none").eval()
    row = rows_of(random_batch(), 0)
    with torch.no_grad():
        loss = model(row)["text"]
        score = model.rank(row, row.target)[0, 0]
    length = model.llm.answer_length(row.target[0])
    torch.testing.assert_close(-score / length, loss, atol=1e-5, rtol=1e-5)


def test_frozen_parts_get_no_gradient_and_trained_parts_do():
    model = tiny_backbone("fusion=bidirectional", "llm.trainable=false")
    model.train()
    sum(model(random_batch()).values()).backward()
    assert all(p.grad is None for p in model.vision.encoder.parameters())
    assert all(p.grad is None for p in model.llm.parameters())
    assert not model.vision.encoder.training
    for part in (model.vision.temporal, model.vision.projector, model.vision.norm, model.alignment):
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())


def test_only_the_position_of_the_last_frame_learns_with_one_frame_of_gradient():
    model = tiny_backbone("alignment=none")
    model(random_batch((4, 4)))["text"].backward()
    moved = model.vision.frame_positions.weight.grad.abs().sum(1) > 0
    assert moved[:5].tolist() == [False, False, False, True, False]


def test_with_more_frames_of_gradient_their_positions_learn_too():
    model = tiny_backbone("alignment=none", "temporal.backprop_frames=3")
    model(random_batch((5, 5)))["text"].backward()
    moved = model.vision.frame_positions.weight.grad.abs().sum(1) > 0
    assert moved[:6].tolist() == [False, False, True, True, True, False]


@pytest.mark.parametrize("temporal", ["memory_qformer", "concat"])
@pytest.mark.parametrize("fusion", ["none", "cross_attention", "sequence_dimension"])
def test_every_aggregator_streams(temporal, fusion):
    model = tiny_backbone(f"temporal={temporal}", f"fusion={fusion}").eval()
    batch = random_batch((3, 3))
    *_, state = model.vision.stream(batch.frames.unbind(1), batch.prompt)
    with torch.no_grad():
        asked = ranked(model, state, batch)
        expected = model.rank(batch, ["comedy", "action"])
    torch.testing.assert_close(asked, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_stream_is_asked_at_any_moment_what_the_film_so_far_would_be_asked(fusion):
    model = tiny_backbone(f"fusion={fusion}", "memory.length=2").eval()
    batch = random_batch((6, 6))
    for t, state in enumerate(model.vision.stream(batch.frames.unbind(1), batch.prompt)):
        so_far = replace(
            batch,
            frames=batch.frames[:, : t + 1],
            frame_mask=batch.frame_mask[:, : t + 1],
            timestamps_s=batch.timestamps_s[:, : t + 1],
        )
        with torch.no_grad():
            asked = ranked(model, state, batch)
            expected = model.rank(so_far, ["comedy", "action"])
        torch.testing.assert_close(asked, expected, atol=1e-4, rtol=1e-4)
    assert t == 5


def test_a_stream_goes_on_beyond_the_table_of_positions():
    model = tiny_backbone("vision.max_num_frames=4").eval()
    frames = random_batch((7, 7)).frames.unbind(1)
    states = [state.video_tokens for state in model.vision.stream(frames, ["who?", "where?"])]
    assert len(states) == 7
    assert states[-1].isfinite().all()


@pytest.mark.slow
def test_a_long_stream_takes_no_more_memory_than_its_beginning():
    model = tiny_backbone("memory.length=8").eval()
    process, frame = psutil.Process(), random_batch((1,)).frames[:, 0]
    frames = (frame + t % 7 for t in range(600))
    resident = [
        process.memory_info().rss
        for t, _ in enumerate(model.vision.stream(frames, ["who?"]))
        if t in (99, 599)
    ]
    assert resident[1] < resident[0] + 10e6


@pytest.mark.parametrize(
    ("frames", "chosen"),
    [
        (FirstK(3), [0, 1, 2]),
        (FirstLast(), [0, 4]),
        (FirstMiddleLast(), [0, 2, 4]),
        (AllFrames(), [0, 1, 2, 3, 4]),
    ],
)
def test_alignment_traces_the_same_outputs_the_whole_film_gives(frames, chosen):
    model = tiny_backbone().eval()
    model.alignment.frames = frames
    batch = random_batch((5, 5))
    with torch.no_grad():
        watched = model.watch(batch)
        _, aligned = model.alignment_inputs(watched)
        whole = model.vision.temporal.look(
            watched.frame_tokens, watched.guide, watched.frame_mask, Wanted(5)
        )[1].outputs
    torch.testing.assert_close(aligned.query_outputs, whole[:, chosen], atol=1e-5, rtol=1e-4)
    assert torch.equal(aligned.frame_tokens, watched.frame_tokens[:, chosen])
    assert aligned.mask.all()


def test_first_and_last_finds_the_last_real_frame_of_a_short_row():
    model = tiny_backbone().eval()
    model.alignment.frames = FirstLast()
    batch = random_batch((5, 2))
    with torch.no_grad():
        watched = model.watch(batch)
        _, aligned = model.alignment_inputs(watched)
    assert torch.equal(aligned.frame_tokens[1, 1], watched.frame_tokens[1, 1])


def test_stage_one_encodes_the_aligned_frames_alone(monkeypatch):
    model = tiny_backbone()
    seen = []
    monkeypatch.setattr(
        model, "_encode", lambda b, n, real=model._encode: seen.append(n) or real(b, n)
    )
    model(random_batch((5, 5)), answer=False)
    assert seen == [3]


def test_features_stand_in_for_frames():
    model = tiny_backbone("alignment=none").eval()
    batch = random_batch()
    with torch.no_grad():
        features = model.vision.encode(batch.frames)
        from_features = model(replace(batch, frames=None, features=features))["text"]
        from_frames = model(batch)["text"]
    assert torch.equal(from_features, from_frames)


def test_more_frames_than_positions_name_both_numbers_and_the_remedy():
    model = tiny_backbone("vision.max_num_frames=3")
    with pytest.raises(ConfigError, match=r"4 frames .* has 3 rows; set vision.max_num_frames=4"):
        model(random_batch())


def test_a_model_without_llm_or_alignment_says_what_to_choose():
    without_llm = tiny_backbone("stage=semantic_alignment")
    with pytest.raises(ConfigError, match="built without an LLM"):
        without_llm.generate(random_batch())
    with pytest.raises(ConfigError, match="built without alignment"):
        tiny_backbone("alignment=none").aligned_features(random_batch())
