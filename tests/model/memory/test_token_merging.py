import pytest
import torch
from films import cosine, random_frames, run
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.core.errors import ConfigError
from mmavlm.model.memory import TokenMerging
from mmavlm.model.memory.token_merging import merge_alike

shapes = st.tuples(
    st.integers(1, 3), st.integers(1, 8), st.integers(1, 4), st.integers(3, 5), st.integers(1, 4)
)  # rows, frames, positions, width, bank length


def merge_slowly(tokens, side, count):
    """Tokens [(vector, size)] → `count` fewer, by bipartite soft matching spelled out."""
    edges = []
    for i, (token, _) in enumerate(tokens):
        if side[i] == 0:
            alike = {j: cosine(token, tokens[j][0]) for j in range(len(tokens)) if side[j] == 1}
            j = max(alike, key=lambda j: (alike[j], -j))
            edges.append((-alike[j], i, j))
    groups = {j: [tokens[j]] for j in range(len(tokens))}
    for _, i, j in sorted(edges)[:count]:
        groups[j].append(tokens[i])
        del groups[i]
    merged = []
    for members in groups.values():
        size = sum(s for _, s in members)
        merged.append((sum(s * x for x, s in members) / size, size))
    return merged


def watch_slowly(film, length):
    """One row (T,N,D) across space and time: the pool of (token, size), in its order."""
    positions, pool = film.shape[1], []
    for frame in film:
        pool += [(token, 1) for token in frame]
        if len(pool) > length * positions:
            side = [(i // positions + i % positions) % 2 for i in range(len(pool))]
            pool = merge_slowly(pool, side, positions)
    return pool


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 10_000))
def test_across_space_and_time_tokens_merge_as_in_the_slow_loop(shape, seed):
    *size, length = shape
    frames = random_frames(size, seed)
    state = run(TokenMerging(length), frames)
    for b, film in enumerate(frames):
        pool = watch_slowly(film, length)
        assert state.counts[b].flatten().tolist() == [size for _, size in pool]
        expected = torch.stack([token for token, _ in pool])
        torch.testing.assert_close(state.tokens[b].flatten(0, 1), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 10_000))
def test_across_time_each_position_is_a_pool_of_its_own(shape, seed):
    *size, length = shape
    frames = random_frames(size, seed)
    state = run(TokenMerging(length, across="time"), frames)
    for b in range(size[0]):
        for n in range(size[2]):
            pool = watch_slowly(frames[b, :, n : n + 1], length)
            assert state.counts[b, :, n].tolist() == [size for _, size in pool]
            expected = torch.stack([token for token, _ in pool])
            torch.testing.assert_close(state.tokens[b, :, n], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("across", ["space_time", "time"])
def test_sizes_add_up_and_their_mean_is_that_of_all_tokens(across):
    frames = random_frames((2, 30, 7, 5), seed=3)
    state = run(TokenMerging(4, across), frames)
    assert state.tokens.shape == (2, 4, 7, 5)
    assert (state.counts.sum((1, 2)) == 30 * 7).all()
    total = (state.tokens * state.counts[..., None]).sum((1, 2)) / (30 * 7)
    torch.testing.assert_close(total, frames.mean((1, 2)), atol=1e-5, rtol=1e-4)


def test_several_tokens_may_merge_into_one():
    x = torch.tensor([1.0, 0.0])
    tokens = torch.stack([x, x, 2 * x, torch.tensor([0.0, 1.0]), 3 * x])[None]
    side = torch.tensor([0, 1, 0, 1, 0])
    merged, sizes = merge_alike(tokens, torch.ones(1, 5), side, 3)
    assert sizes.tolist() == [[4, 1]]
    assert merged.tolist() == [[[1.75, 0.0], [0.0, 1.0]]]


def test_a_token_that_nothing_joins_stays_bit_for_bit():
    tokens = random_frames((1, 6, 9), seed=0)
    sizes = torch.tensor([[3.0, 7, 1, 9, 11, 13]])
    merged, merged_sizes = merge_alike(tokens, sizes, torch.arange(6) % 2, 1)
    untouched = [k for k in range(6) if any(torch.equal(tokens[0, k], m) for m in merged[0])]
    assert len(untouched) == 4
    assert merged_sizes.sum() == sizes.sum()


def test_an_unknown_reach_is_refused():
    with pytest.raises(ConfigError, match=r"memory.across is 'space'; choose 'space_time' or"):
        TokenMerging(3, across="space")
