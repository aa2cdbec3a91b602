"""Many frames at once, layer by layer, against the frame loop that takes them one by one."""

import pytest
import torch
from small_films import STRATEGIES, build, gradients, inputs

from mmavlm.model.memory import Fifo, MergeAdjacent
from mmavlm.model.temporal import LiveState, live, memory_qformer


def frame_by_frame(module, tokens, prompt):
    """The state after a film whose rows are equally long, a frame at a time."""
    return list(module.stream(prompt, tokens.unbind(1)))[-1]


@pytest.mark.parametrize("frames_at_once", [1, 3, 7, 100])
@pytest.mark.parametrize("memory", STRATEGIES, ids=lambda m: f"{type(m).__name__}{m.length}")
def test_tokens_and_banks_are_those_of_the_frame_loop(memory, frames_at_once, monkeypatch):
    module = build(memory)
    tokens, prompt, mask = inputs(0, 2, 11, ragged=False)
    monkeypatch.setattr(
        memory_qformer,
        "PROJECTED_BYTES",
        frames_at_once * module._projected_bytes(tokens[:, 0], False),
    )
    with torch.no_grad():
        ours = module(tokens, prompt, mask)
    theirs = frame_by_frame(module, tokens, prompt)
    assert isinstance(ours, LiveState)
    torch.testing.assert_close(ours.video_tokens, theirs.video_tokens, atol=2e-5, rtol=1e-4)
    assert torch.equal(ours.visual_bank.tokens, theirs.visual_bank.tokens)
    assert torch.equal(ours.visual_bank.counts, theirs.visual_bank.counts)
    torch.testing.assert_close(
        ours.query_bank.tokens, theirs.query_bank.tokens, atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("memory", STRATEGIES, ids=lambda m: f"{type(m).__name__}{m.length}")
def test_positions_in_stretches_change_nothing(memory, ragged, monkeypatch):
    module = build(memory)
    args = inputs(4, 2, 11, ragged=ragged)
    with torch.no_grad():
        whole = module(*args)
        monkeypatch.setattr(live, "CACHED_BYTES", 1)
        ours = module(*args)
    assert [len(carried) for carried in whole.visual_keys] == [1, 1]
    assert [len(carried) for carried in ours.visual_keys] == [5, 5]
    torch.testing.assert_close(ours.video_tokens, whole.video_tokens, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("cached_bytes", [1, 2**22])
def test_a_film_goes_on_frame_by_frame_after_many_at_once(cached_bytes, monkeypatch):
    monkeypatch.setattr(live, "CACHED_BYTES", cached_bytes)
    module = build(MergeAdjacent(3), Fifo(2))
    tokens, prompt, mask = inputs(1, 2, 12, ragged=False)
    with torch.no_grad():
        state = module(tokens[:, :8], prompt, mask[:, :8])
        for t in range(8, 12):
            state = module.step(state, tokens[:, t], mask[:, t])
    theirs = frame_by_frame(module, tokens, prompt)
    torch.testing.assert_close(state.video_tokens, theirs.video_tokens, atol=2e-5, rtol=1e-4)


def test_rows_that_start_late_have_nothing_to_attend_to_before(monkeypatch):
    monkeypatch.setattr(memory_qformer, "PROJECTED_BYTES", 1)
    module = build(MergeAdjacent(3))
    tokens, prompt, _ = inputs(2, 2, 9, ragged=False)
    mask = torch.tensor([[False] * 6 + [True] * 3, [True] * 9])
    with torch.no_grad():
        both = module(tokens, prompt, mask).video_tokens
        late = module(tokens[:1, 6:], type(prompt)(prompt.ids[:1], prompt.mask[:1]), mask[:1, 6:])
    assert both.isfinite().all()
    torch.testing.assert_close(both[:1], late.video_tokens, atol=2e-5, rtol=1e-4)


def test_dropout_in_training_is_drawn_for_every_frame():
    module = build(MergeAdjacent(4))
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.2
        elif hasattr(part, "dropout") and isinstance(part.dropout, float):
            part.dropout = 0.2
    tokens, prompt, mask = inputs(3, 1, 1, ragged=False)
    tokens, mask = tokens.expand(-1, 5, -1, -1), mask.expand(-1, 5)
    state = module.train()(tokens, prompt, mask)
    first, second = state.query_bank.tokens[0, :2]
    assert not torch.equal(first, second)
    assert gradients(module, state)
