import pytest
import torch
from films import random_frames
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.model.memory import (
    Average,
    EpisodicCompressor,
    Fifo,
    KeepAll,
    MergeAdjacent,
    TokenMerging,
    frame_shares,
)
from mmavlm.model.memory.shares import shares_by_derivative

OF_RUNS = [MergeAdjacent(4), MergeAdjacent(1), Fifo(4), Fifo(0), Average(), KeepAll()]
# whose slots hold at each position frames of that position
BY_POSITION = [
    *OF_RUNS,
    EpisodicCompressor(4),
    EpisodicCompressor(4, unit="position"),
    TokenMerging(4, across="time"),
]
EVERY = [*BY_POSITION, TokenMerging(4)]
MASKS = st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=3)


def watch(memory, frames, mask):
    """The bank after the last frame of each row, which no padding follows."""
    order = mask.int().argsort(dim=1, stable=True)
    rows = torch.arange(len(mask))[:, None]
    frames, mask = frames[rows, order], mask[rows, order]
    state = memory.init(frames[:, 0])
    for t in range(frames.shape[1]):
        state = memory.append(memory.compress(state), frames[:, t], mask[:, t])
    return state


def watched(memory, mask, seed, width=6):
    mask = torch.tensor(mask)
    frames = random_frames((*mask.shape, 3, width), seed)
    bank = watch(memory, frames, mask)
    return frames, mask, bank, frame_shares(memory, bank, frames, mask)


@pytest.mark.parametrize("memory", EVERY, ids=lambda memory: type(memory).__name__)
@settings(max_examples=15, deadline=None)
@given(MASKS, st.integers(0, 1000))
def test_the_shares_of_a_filled_slot_add_up_to_one_and_none_is_of_a_frame_not_seen(
    memory, mask, seed
):
    _, mask, bank, shares = watched(memory, mask, seed)
    torch.testing.assert_close(shares.sum(-1), (bank.counts > 0).float())
    assert (shares >= 0).all()
    assert not shares.masked_select(~mask[:, None, None]).any()


@pytest.mark.parametrize("memory", BY_POSITION, ids=lambda memory: type(memory).__name__)
@settings(max_examples=15, deadline=None)
@given(MASKS, st.integers(0, 1000))
def test_a_slot_is_the_mean_of_its_frames_by_their_shares(memory, mask, seed):
    frames, _, bank, shares = watched(memory, mask, seed)
    mean = torch.einsum("bsnt,btnd->bsnd", shares, frames)
    held = bank.counts > 0
    torch.testing.assert_close(mean[held], bank.tokens[held], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("memory", OF_RUNS, ids=lambda memory: type(memory).__name__)
@settings(max_examples=15, deadline=None)
@given(MASKS, st.integers(0, 1000))
def test_counts_and_derivatives_tell_the_same_shares(memory, mask, seed):
    frames, mask, bank, shares = watched(memory, mask, seed)
    torch.testing.assert_close(shares_by_derivative(memory, bank, frames, mask), shares)


def test_films_with_more_frames_than_a_token_has_numbers_are_told_apart():
    frames, _, bank, shares = watched(EpisodicCompressor(3), [[True] * 9], seed=0, width=2)
    mean = torch.einsum("bsnt,btnd->bsnd", shares, frames)
    torch.testing.assert_close(mean, bank.tokens, atol=1e-5, rtol=1e-4)


def test_shares_can_be_asked_for_in_inference_mode():
    with torch.inference_mode():
        shares = watched(TokenMerging(3), [[True] * 9], seed=0)[-1]
    torch.testing.assert_close(shares.sum(-1), torch.ones(shares.shape[:-1]))
