"""Frames looked at in the middle of a film, from the memory they have there."""

import pytest
import torch
from small_films import QUERIES, VISUAL, VOCAB, WIDTH, build

from mmavlm.core.interfaces import TextTokens
from mmavlm.model.memory import Average, EpisodicCompressor, Fifo, KeepAll, MergeAdjacent
from mmavlm.model.temporal import Wanted
from support import peak_bytes

MEMORIES = [
    MergeAdjacent(2),
    MergeAdjacent(4),
    Fifo(2),
    KeepAll(),
    Average(),
    EpisodicCompressor(3),
]
ALL = Wanted(1, middle=True, last=True, layers=(0, 1, 2))


def prompt_of(lengths):
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    draw = torch.Generator().manual_seed(1)
    return TextTokens(torch.randint(1, VOCAB, mask.shape, generator=draw), mask)


def films(lengths, seed=0):
    frames = torch.randn(
        len(lengths), max(lengths), 6, VISUAL, generator=torch.Generator().manual_seed(seed)
    )
    return frames, torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("memory", MEMORIES, ids=lambda memory: type(memory).__name__)
@pytest.mark.parametrize("training", [True, False])
def test_rows_of_any_length_are_looked_at_as_each_alone(memory, training):
    model, lengths = build(memory), [9, 1, 2, 3, 6]
    prompt, (frames, mask) = prompt_of([5, 3, 1, 4, 2]), films(lengths)
    with torch.set_grad_enabled(training):
        state, looks = model.look(frames, prompt, mask, ALL)
        for row, length in enumerate(lengths):
            text = int(prompt.mask[row].sum())
            alone = TextTokens(prompt.ids[row : row + 1, :text], prompt.mask[row : row + 1, :text])
            film, real = frames[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool)
            every = model.look(film, alone, real, Wanted(length, layers=ALL.layers))[1]
            expected = sorted({0, length // 2, length - 1})
            seen = looks.mask[row]
            assert looks.frames[row, seen].tolist() == expected
            near = {"atol": 2e-5, "rtol": 1e-4}
            torch.testing.assert_close(looks.outputs[row, seen], every.outputs[0, expected], **near)
            torch.testing.assert_close(looks.crossed[row, seen], every.crossed[0, expected], **near)
            torch.testing.assert_close(state.video_tokens[row], every.outputs[0, -1], **near)


@pytest.mark.parametrize("cache_keys", [True, False])
def test_the_middle_frame_carries_gradient_and_its_past_does_not(cache_keys):
    model, prompt = build(MergeAdjacent(3), cache_keys=cache_keys), prompt_of([5, 3])
    frames, mask = films([6, 5])
    frames.requires_grad_()
    _, looks = model.look(frames, prompt, mask, ALL)
    looks.outputs[:, 1].square().sum().backward()
    moved = (frames.grad.abs().sum((2, 3)) > 0).tolist()
    assert moved == [[False, False, False, True, False, False], [False, False, True, *[False] * 3]]
    assert model.query_tokens.grad.any()


@pytest.mark.parametrize("memory", MEMORIES, ids=lambda memory: type(memory).__name__)
@pytest.mark.parametrize("settings", [{}, {"cache_keys": False}, {"backprop_frames": 2}])
def test_frames_that_are_not_learned_from_change_nothing_for_those_that_are(memory, settings):
    model, prompt = build(memory, **settings), prompt_of([5, 3])
    frames, mask = films([6, 4])
    learned = [0, 3, 5]
    outputs, gradients = [], []
    for chosen in (None, frozenset(learned)):
        looks = model.look(frames, prompt, mask, Wanted(6, learned=chosen))[1]
        outputs.append(looks.outputs.detach())
        of = [p for p in model.parameters() if p.requires_grad]
        loss = looks.outputs[:, learned][looks.mask[:, learned]].square().sum()
        gradients.append(torch.autograd.grad(loss, of, allow_unused=True))
    torch.testing.assert_close(*outputs, atol=2e-5, rtol=1e-4)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_frames_that_are_not_learned_from_hold_nothing_for_a_gradient():
    model, prompt = build(MergeAdjacent(3)), prompt_of([5, 3])
    frames, mask = films([24, 24])

    def step(learned):
        looks = model.look(frames, prompt, mask, Wanted(24, learned=learned))[1]
        looks.outputs[:, 7].sum().backward()

    held = peak_bytes(lambda: step(frozenset({7})))
    assert held < peak_bytes(lambda: step(None)) / 4


def test_looking_on_the_way_changes_nothing_at_the_end():
    model, prompt = build(MergeAdjacent(3)), prompt_of([5, 3])
    frames, mask = films([7, 7])
    state, _ = model.look(frames, prompt, mask, ALL)
    plain = model(frames, prompt, mask)
    torch.testing.assert_close(state.video_tokens, plain.video_tokens, atol=1e-6, rtol=1e-5)
    assert torch.equal(state.visual_bank.tokens, plain.visual_bank.tokens)


def test_behind_cross_attention_is_what_the_feed_forward_reads():
    model, prompt = build(MergeAdjacent(3)), prompt_of([5, 3])
    frames, mask = films([3, 3])
    read = []
    for layer in model.qformer.layers:
        layer.intermediate_query.register_forward_hook(lambda _, given, __: read.append(given[0]))
    _, looks = model.look(frames, prompt, mask, Wanted(1, layers=(0, 2)))
    assert looks.crossed.shape == (2, 1, 2, QUERIES, WIDTH)
    assert torch.equal(looks.crossed[:, 0, 0], read[0])
    assert torch.equal(looks.crossed[:, 0, 1], read[2])


def test_leading_frames_alone_need_no_state_of_the_whole_film():
    frames, mask = films([4, 4])
    state, looks = build(Fifo(2)).look(frames, prompt_of([2, 2]), mask, Wanted(3))
    assert state is None
    assert looks.crossed is None
    assert looks.frames.tolist() == [[0, 1, 2]] * 2
