"""Frames without gradient: keys projected once, against the plain loop that projects all anew."""

import copy

import pytest
import torch
import torch._dynamo.testing
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_films import QUERIES, STRATEGIES, WIDTH, build, gradients, inputs

from mmavlm.model.memory import MergeAdjacent
from mmavlm.model.memory.base import MemoryBank
from mmavlm.model.temporal import LiveState, MemoryQFormerState


def pair(visual, query=None, **settings):
    """The module with its keys cached, and the plain one with the same weights."""
    fast = build(visual, query, **settings)
    plain = copy.deepcopy(fast)
    plain.cache_keys = False
    return fast, plain


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 9), st.booleans(),
    st.sampled_from(STRATEGIES), st.sampled_from(STRATEGIES), st.integers(1, 4),
)  # fmt: skip
def test_cached_keys_change_neither_tokens_nor_gradients(
    seed, batch, frames, ragged, visual, query, backprop_frames
):
    # The text's inputs to the first layers are alike in all frames but for rounding, which then
    # decides what is merged: the tokens stay the same, but not what a merged slot passes on of the
    # gradient of a frame that carries one.
    assume(backprop_frames == 1 or not query.compares)
    fast, plain = pair(visual, query, backprop_frames=backprop_frames)
    args = inputs(seed, batch, frames, ragged)
    with torch.no_grad():
        torch.testing.assert_close(
            fast(*args).video_tokens, plain(*args).video_tokens, atol=2e-5, rtol=1e-4
        )
    ours, theirs = (gradients(module, module(*args)) for module in (fast, plain))
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=3e-4, rtol=1e-3, msg=name)


def test_gradients_agree_to_rounding_in_double_precision():
    fast, plain = (module.double() for module in pair(MergeAdjacent(3)))
    tokens, prompt, mask = inputs(0, 2, 9, ragged=True)
    args = (tokens.double(), prompt, mask)
    ours, theirs = (gradients(module, module(*args)) for module in (fast, plain))
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_every_parameter_gets_the_plain_gradient(dtype):
    fast, plain = pair(MergeAdjacent(3))
    args = inputs(0, 2, 8, ragged=False)
    found = []
    for module in (fast, plain):
        with torch.autocast("cpu", dtype):
            state = module(*args)
        found.append(gradients(module, state))
    assert found[0].keys() == found[1].keys()
    in_single = gradients(plain, plain(*args))
    assert found[0].keys() == in_single.keys()
    for name, expected in in_single.items():
        if expected.norm() > 0.1:  # that of a key's bias is zero but for rounding
            for ours in found:
                off = (ours[name] - expected).norm() / expected.norm()
                assert off < 0.2, name


@pytest.mark.parametrize("memory", STRATEGIES, ids=lambda m: f"{type(m).__name__}{m.length}")
def test_the_banks_of_a_live_state_are_those_of_the_plain_one(memory):
    fast, plain = pair(memory)
    args = inputs(0, 2, 7, ragged=False)
    with torch.no_grad():
        live, value = fast(*args), plain(*args)
    assert isinstance(live, LiveState)
    assert isinstance(value, MemoryQFormerState)
    # rounding decides what is merged of entries that are alike in all frames, as are the inputs of
    # the first layer and those of the second one's text
    num_inputs = live.hidden.shape[1]
    told_apart = torch.ones(3 * num_inputs, dtype=torch.bool)
    told_apart[:num_inputs] = told_apart[num_inputs + QUERIES : 2 * num_inputs] = False
    for ours, theirs, positions in (
        (live.visual_bank, value.visual_bank, slice(None)),
        (live.query_bank, value.query_bank, told_apart),
    ):
        assert torch.equal(ours.seen, theirs.seen)
        torch.testing.assert_close(ours.tokens, theirs.tokens, atol=1e-5, rtol=1e-4)
        assert torch.equal(ours.counts[..., positions], theirs.counts[..., positions])


@pytest.mark.parametrize("memory", STRATEGIES, ids=lambda m: f"{type(m).__name__}{m.length}")
def test_a_stream_gives_the_tokens_of_every_beginning_of_the_film(memory):
    module = build(memory)
    tokens, prompt, mask = inputs(1, 2, 20, ragged=False)
    for t, state in enumerate(module.stream(prompt, tokens.unbind(1))):
        with torch.no_grad():
            whole = module(tokens[:, : t + 1], prompt, mask[:, : t + 1])
        torch.testing.assert_close(state.video_tokens, whole.video_tokens, atol=2e-5, rtol=1e-4)
    assert t == 19


def test_a_stream_holds_no_more_after_many_frames_than_after_few():
    module = build(MergeAdjacent(3))
    tokens, prompt, _ = inputs(1, 1, 60, ragged=False)
    sizes = []
    for state in module.stream(prompt, tokens.unbind(1)):
        kept = (state.visual.tokens, *(k.values for keys in state.visual_keys for k in keys))
        kept += (state.query.tokens, state.query_keys.values)
        sizes.append(sum(tensor.numel() for tensor in kept))
    assert len(set(sizes)) == 1


def test_a_step_leaves_the_state_before_it_untouched():
    module = build(MergeAdjacent(3)).eval()
    tokens, prompt, mask = inputs(2, 2, 9, ragged=False)
    with torch.no_grad():
        states = [module.start(prompt, tokens[:, 0])]
        for t in range(9):
            states.append(module.step(states[-1], tokens[:, t], mask[:, t]))
        again = module.step(states[5], tokens[:, 5], mask[:, 5])
    assert torch.equal(again.video_tokens, states[6].video_tokens)
    assert torch.equal(again.visual_bank.tokens, states[6].visual_bank.tokens)


def test_a_live_state_goes_on_with_gradient():
    module = build(MergeAdjacent(3))
    tokens, prompt, mask = inputs(2, 2, 6, ragged=False)
    with torch.no_grad():
        state = module.start(prompt, tokens[:, 0])
        for t in range(5):
            state = module.step(state, tokens[:, t], mask[:, t])
    state = module.step(state, tokens[:, 5], mask[:, 5])
    expected = module(tokens, prompt, mask)
    torch.testing.assert_close(state.video_tokens, expected.video_tokens, atol=2e-5, rtol=1e-4)
    assert gradients(module, state)


class EveryOther(MemoryBank):
    """A strategy that cannot be kept in place: of a full bank every other slot is dropped."""

    def compress(self, state):
        if state.tokens.shape[1] <= self.length:
            return state
        return type(state)(state.tokens[:, ::2], state.counts[:, ::2], state.seen)


def test_a_strategy_without_a_rule_takes_the_plain_loop():
    module = build(EveryOther(3), MergeAdjacent(3))
    tokens, prompt, mask = inputs(3, 2, 9, ragged=False)
    with torch.no_grad():
        assert isinstance(module(tokens, prompt, mask), MemoryQFormerState)
    last = list(module.stream(prompt, tokens.unbind(1)))[-1]
    expected = module(tokens, prompt, mask).video_tokens
    torch.testing.assert_close(last.video_tokens, expected, atol=2e-5, rtol=1e-4)
    assert gradients(module, module(tokens, prompt, mask))


def test_twenty_training_steps_give_the_losses_of_the_plain_loop():
    losses = []
    for module in pair(MergeAdjacent(3)):
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
        found = []
        for step in range(20):
            tokens, prompt, mask = inputs(step, 3, 8, ragged=True)
            target = torch.linspace(-1, 1, WIDTH).sin()
            loss = (module(tokens, prompt, mask).video_tokens - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        losses.append(found)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[0][-1] < losses[0][0]


def test_evaluation_without_gradient_gives_tokens_that_can_be_trained_on():
    module = build(MergeAdjacent(3))
    with torch.no_grad():
        tokens = module(*inputs(4, 2, 6, ragged=False)).video_tokens
    head = torch.nn.Linear(WIDTH, 1)
    head(tokens).sum().backward()
    assert head.weight.grad is not None


@pytest.mark.slow
def test_compiled_layers_give_the_same_tokens_and_are_not_compiled_anew_at_every_frame():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch._dynamo.register_backend(counter, name="counting")
    module = build(MergeAdjacent(4), compile_backend="counting").eval()
    plain = build(MergeAdjacent(4)).eval()
    compiled_at = []
    for frames in (9, 9, 30):
        args = inputs(frames, 2, frames, ragged=False)
        with torch.no_grad():
            ours, theirs = module(*args).video_tokens, plain(*args).video_tokens
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
        compiled_at.append(counter.frame_count)
    assert 0 < compiled_at[0] == compiled_at[-1]
    torch._dynamo.reset()
