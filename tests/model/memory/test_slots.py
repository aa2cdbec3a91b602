import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.model.memory import Average, Fifo, KeepAll, MergeAdjacent
from mmavlm.model.memory.carried import Carried
from mmavlm.model.memory.slots import SlotBank, SlotRule

STRATEGIES = [MergeAdjacent(4), MergeAdjacent(1), Fifo(3), Fifo(0), Average(), KeepAll()]
shapes = st.tuples(
    st.integers(1, 3), st.integers(1, 12), st.integers(1, 4), st.integers(2, 5)
)  # rows, frames, positions, width


def in_place(memory, frames, mask=None, at_most=None, project=None):
    """The slot bank after frames (R,T,N,D), with their projections carried along if asked for."""
    ragged = mask is not None
    mask = torch.ones(frames.shape[:2], dtype=torch.bool) if mask is None else mask
    bank, held = SlotBank(memory, frames[:, 0], at_most=at_most, ragged=ragged), None
    if project is not None:
        rows, positions, width = project(frames[:, 0]).shape
        carried = Carried(frames.new_zeros(rows, bank.room, positions, 1, 1, width))
    for t in range(frames.shape[1]):
        move = bank.make_room(mask[:, t])
        bank.take(move, frames[:, t])
        if project is not None:
            carried.merge(move)
            held = carried.put(move, [project(frames[:, t])[:, None]])
    return bank, held


def plain(memory, frames, mask=None):
    """The same by the strategy's own append and compress."""
    mask = torch.ones(frames.shape[:2], dtype=torch.bool) if mask is None else mask
    state = memory.init(frames[:, 0])
    for t in range(frames.shape[1]):
        state = memory.append(memory.compress(state), frames[:, t], mask[:, t])
    return state


def filled(state, row):
    held = state.counts[row, :, 0] > 0
    return state.tokens[row, held], state.counts[row, held]


def random_film(shape, seed, ties):
    frames = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if ties:  # few different frames, so that similarities are equal
        frames = frames.sign()
    return frames


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 10_000), st.sampled_from(STRATEGIES), st.booleans(), st.booleans())
def test_a_bank_in_place_equals_the_plain_one(shape, seed, memory, ties, known_length):
    frames = random_film(shape, seed, ties)
    bank, _ = in_place(memory, frames, at_most=shape[1] if known_length else None)
    ours, theirs = bank.state(), plain(memory, frames)
    torch.testing.assert_close(ours.tokens, theirs.tokens, atol=1e-6, rtol=1e-6)
    assert torch.equal(ours.counts, theirs.counts)
    assert torch.equal(ours.seen, theirs.seen)


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 10_000), st.sampled_from(STRATEGIES), st.booleans())
def test_rows_that_skip_frames_hold_what_the_plain_bank_holds(shape, seed, memory, ties):
    frames = random_film(shape, seed, ties)
    mask = torch.rand(shape[:2], generator=torch.Generator().manual_seed(seed)) > 0.4
    bank, _ = in_place(memory, frames, mask)
    # a row that skips a frame is compressed by the plain bank at once, in place before the next one
    ours, theirs = (memory.compress(s) for s in (bank.state(), plain(memory, frames, mask)))
    assert torch.equal(ours.seen, mask.sum(1))
    for row in range(shape[0]):
        for one, other in zip(filled(ours, row), filled(theirs, row), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("memory", STRATEGIES, ids=lambda m: f"{type(m).__name__}{m.length}")
@pytest.mark.parametrize("ragged", [False, True])
def test_what_is_carried_is_the_projection_of_the_bank(memory, ragged):
    torch.manual_seed(0)
    frames, weight, bias = torch.randn(2, 11, 3, 5), torch.randn(5, 7), torch.randn(7)
    mask = torch.rand(2, 11) > 0.4 if ragged else None
    bank, carried = in_place(memory, frames, mask, project=lambda x: x @ weight + bias)
    for row, counts in enumerate(bank.counts):
        held = (counts[:, 0] > 0).nonzero()[:, 0]
        expected = bank.tokens[row, held] @ weight + bias
        ours = carried[0, row, 0].unflatten(0, (-1, 3))[held]
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("memory", STRATEGIES[:-1], ids=lambda m: f"{type(m).__name__}{m.length}")
def test_a_bank_takes_no_more_room_than_its_length_and_one(memory):
    bank, _ = in_place(memory, torch.randn(1, 40, 2, 3))
    assert bank.tokens.shape[1] == memory.slots + 1


def test_a_clone_is_left_as_it_was():
    torch.manual_seed(0)
    frames = torch.randn(1, 9, 2, 3)
    bank, _ = in_place(MergeAdjacent(3), frames)
    before, other = bank.state(), bank.clone()
    bank.take(bank.make_room(torch.tensor([True])), frames[:, 0])
    assert torch.equal(other.state().tokens, before.tokens)
    assert not torch.equal(bank.state().tokens, before.tokens)


def test_half_precision_banks_equal_the_plain_one():
    torch.manual_seed(0)
    for dtype in (torch.float16, torch.bfloat16):
        frames = torch.randn(2, 12, 3, 8).to(dtype)
        bank, _ = in_place(MergeAdjacent(3), frames)
        assert bank.tokens.dtype == dtype
        assert torch.equal(bank.state().tokens, plain(MergeAdjacent(3), frames).tokens)


def test_every_strategy_can_be_kept_in_place():
    assert all(isinstance(memory, SlotRule) for memory in STRATEGIES)


@pytest.mark.parametrize("memory", STRATEGIES)
def test_a_bank_that_no_frame_came_to_holds_nothing(memory):
    like = torch.zeros(2, 3, 4)
    assert SlotBank(memory, like).state().tokens.shape == (2, 0, 3, 4)
