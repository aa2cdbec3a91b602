import itertools

import pytest
import torch
from films import run
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.core.errors import ConfigError
from mmavlm.model.memory import (
    Average,
    EpisodicCompressor,
    Fifo,
    KeepAll,
    MergeAdjacent,
    TokenMerging,
    slot_spans,
)

OF_RUNS = [MergeAdjacent(4), Fifo(4), Average(), KeepAll()]  # whose slots hold runs of frames
ANY_FRAMES = [
    EpisodicCompressor(4),
    EpisodicCompressor(4, unit="position"),
    TokenMerging(4),
    TokenMerging(4, across="time"),
    TokenMerging(1),
]
STRATEGIES = [*OF_RUNS, Fifo(0), *ANY_FRAMES]
MERGING = [MergeAdjacent(2), *ANY_FRAMES]  # they forget nothing
shapes = st.tuples(
    st.integers(1, 3), st.integers(1, 12), st.integers(1, 4), st.integers(1, 5), st.integers(1, 6)
)


def told(memory):
    settings = [str(value) for value in vars(memory).values()]
    return "-".join([type(memory).__name__, *settings])


def merge_slowly(frames: torch.Tensor, length: int) -> list[tuple[torch.Tensor, int]]:
    """One position of one row, (T,D): the memory bank compression spelled out with lists."""
    bank: list[tuple[torch.Tensor, int]] = []
    for frame in frames:
        bank.append((frame, 1))
        if len(bank) > length:
            similarity = [
                float(a @ b) / max(float(a.norm() * b.norm()), 1e-8)
                for (a, _), (b, _) in itertools.pairwise(bank)
            ]
            k = similarity.index(max(similarity))
            (a, m), (b, n) = bank[k], bank[k + 1]
            bank[k : k + 2] = [((m * a + n * b) / (m + n), m + n)]
    return bank


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 10_000))
def test_merge_adjacent_equals_the_slow_loop(shape, seed):
    batch, time, positions, width, length = shape
    frames = torch.randn(
        batch, time, positions, width, generator=torch.Generator().manual_seed(seed)
    )
    # two dimensions at least, or all cosines are ±1 and rounding decides the pair
    frames = torch.cat([frames, frames.sin() + 1], dim=-1).double().float()
    state = run(MergeAdjacent(length), frames)
    for b in range(batch):
        for n in range(positions):
            bank = merge_slowly(frames[b, :, n], length)
            assert state.counts[b, :, n].tolist() == [count for _, count in bank]
            expected = torch.stack([token for token, _ in bank])
            torch.testing.assert_close(state.tokens[b, :, n], expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 10_000))
def test_merge_adjacent_keeps_total_count_and_the_mean_of_all_frames(shape, seed):
    batch, time, positions, width, length = shape
    frames = torch.randn(
        batch, time, positions, width, generator=torch.Generator().manual_seed(seed)
    )
    state = run(MergeAdjacent(length), frames)
    assert (state.counts.sum(1) == time).all()
    assert (state.seen == time).all()
    mean = (state.tokens * state.counts.unsqueeze(-1)).sum(1) / time
    torch.testing.assert_close(mean, frames.mean(1), atol=1e-5, rtol=1e-4)


def test_merge_adjacent_takes_the_first_pair_on_ties():
    frames = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])[None, :, None]
    state = run(MergeAdjacent(3), frames)
    assert state.counts[0, :, 0].tolist() == [2, 1, 1]


def test_merge_adjacent_weights_by_the_frames_a_slot_holds():
    frames = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.3]])[None, :, None]
    state = run(MergeAdjacent(1), frames)
    torch.testing.assert_close(state.tokens[0, 0, 0], torch.tensor([1.0, 0.1]))


@pytest.mark.parametrize("memory", STRATEGIES, ids=told)
def test_a_row_with_gaps_equals_the_row_without_them(memory):
    torch.manual_seed(0)
    frames = torch.randn(3, 12, 2, 5)
    mask = torch.rand(3, 12) > 0.4
    mask[:, 3] = True
    state = run(memory, frames, mask)
    tokens, filled = memory.read(state)
    for b in range(3):
        alone = run(memory, frames[b : b + 1, mask[b]])
        alone_tokens, alone_filled = memory.read(alone)
        assert torch.equal(tokens[b, filled[b]], alone_tokens[0, alone_filled[0]])
        assert torch.equal(state.counts[b, filled[b]], alone.counts[0, alone_filled[0]])


@pytest.mark.parametrize("memory", STRATEGIES, ids=told)
def test_a_state_is_a_value_that_steps_leave_untouched(memory):
    torch.manual_seed(0)
    frames = torch.randn(1, 9, 2, 3)
    state = run(memory, frames)
    before = state.tokens.clone(), state.counts.clone()
    memory.compress(memory.append(state, frames[:, 0], torch.tensor([True])))
    assert torch.equal(state.tokens, before[0])
    assert torch.equal(state.counts, before[1])


def test_fifo_holds_the_latest_frames():
    frames = torch.arange(7.0).view(1, 7, 1, 1)
    assert run(Fifo(3), frames).tokens.flatten().tolist() == [4, 5, 6]
    assert run(Fifo(0), frames).tokens.shape == (1, 0, 1, 1)


def test_average_holds_the_mean_of_all_frames():
    frames = torch.randn(2, 9, 3, 4)
    state = run(Average(), frames)
    torch.testing.assert_close(state.tokens[:, 0], frames.mean(1))
    assert (state.counts == 9).all()


def test_keep_all_holds_every_frame_as_it_came():
    frames = torch.randn(2, 9, 3, 4)
    assert torch.equal(run(KeepAll(), frames).tokens, frames)


@pytest.mark.parametrize("memory", OF_RUNS)
def test_slot_spans_are_consecutive_and_end_at_the_latest_frame(memory):
    torch.manual_seed(1)
    state = run(memory, torch.randn(2, 11, 3, 4))
    first, last = slot_spans(state)
    assert torch.equal(last[:, :-1], first[:, 1:])
    assert (last[:, -1] == 11).all()
    assert ((last - first) == state.counts).all()


@pytest.mark.parametrize("memory", MERGING, ids=told)
def test_merging_keeps_the_count_and_the_mean_of_all_frames(memory):
    torch.manual_seed(2)
    frames = torch.randn(3, 15, 4, 6)
    mask = torch.rand(3, 15) > 0.3
    state = run(memory, frames, mask)
    assert torch.equal(state.seen, mask.sum(1))
    assert torch.equal(state.counts.sum((1, 2)), 4.0 * state.seen)
    weighted = (state.tokens * state.counts.unsqueeze(-1)).sum((1, 2))
    expected = (frames * mask[:, :, None, None]).sum((1, 2))
    torch.testing.assert_close(weighted, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("memory", MERGING, ids=told)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_banks_keep_the_dtype_and_are_merged_in_single_precision(memory, dtype):
    torch.manual_seed(0)
    state = run(memory, 300 * torch.randn(2, 9, 3, 8).to(dtype))  # squares overflow float16
    assert state.tokens.dtype == dtype
    assert state.counts.dtype == torch.float32
    assert torch.isfinite(state.tokens).all()
    assert (state.counts.sum((1, 2)) == 27).all()


def test_half_precision_tokens_are_merged_in_single_precision():
    torch.manual_seed(0)
    frames = torch.randn(1, 6, 2, 8).half()
    state = run(MergeAdjacent(1), frames)
    assert state.tokens.dtype == torch.float16
    # six roundings to half precision on the way
    torch.testing.assert_close(
        state.tokens[:, 0].float(), frames.float().mean(1), atol=4e-3, rtol=0
    )


def test_a_bank_without_slots_is_refused():
    with pytest.raises(ConfigError, match=r"memory.length is 0.*MergeAdjacent needs at least 1"):
        MergeAdjacent(0)
