import itertools

import pytest
import torch
from films import cosine, random_frames, run
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.core.errors import ConfigError
from mmavlm.model.memory import EpisodicCompressor

shapes = st.tuples(
    st.integers(1, 3), st.integers(1, 10), st.integers(1, 3), st.integers(3, 5), st.integers(1, 5)
)  # rows, frames, positions, width, bank length


def compress_slowly(frames, length):
    """One row's frames (T,N,D): episodes (tokens (N,D), count), all pairs compared with lists."""
    bank = []
    for frame in frames:
        bank.append((frame, 1))
        if len(bank) > length:
            pairs = list(itertools.combinations(range(len(bank)), 2))
            alike = [
                sum(cosine(a, b) for a, b in zip(bank[i][0], bank[j][0], strict=True))
                for i, j in pairs
            ]
            i, j = pairs[alike.index(max(alike))]
            (a, m), (b, n) = bank[i], bank[j]
            bank[i] = ((m * a + n * b) / (m + n), m + n)
            del bank[j]
    return bank


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(0, 10_000))
def test_whole_frames_merge_as_in_the_slow_loop(shape, seed):
    *size, length = shape
    frames = random_frames(size, seed)
    state = run(EpisodicCompressor(length), frames)
    for b, film in enumerate(frames):
        bank = compress_slowly(film, length)
        counts = torch.tensor([count for _, count in bank])
        assert torch.equal(state.counts[b], counts[:, None].float().expand(-1, size[2]))
        expected = torch.stack([tokens for tokens, _ in bank])
        torch.testing.assert_close(state.tokens[b], expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 10_000))
def test_by_position_each_one_has_the_bank_it_would_have_alone(shape, seed):
    *size, length = shape
    frames = random_frames(size, seed)
    state = run(EpisodicCompressor(length, unit="position"), frames)
    for n in range(size[2]):
        alone = run(EpisodicCompressor(length, unit="frame"), frames[:, :, n : n + 1])
        assert torch.equal(state.counts[:, :, n], alone.counts[:, :, 0])
        torch.testing.assert_close(state.tokens[:, :, n], alone.tokens[:, :, 0])


@pytest.mark.parametrize("unit", ["frame", "position"])
def test_a_scene_that_returns_joins_its_episode(unit):
    here, there = torch.eye(3)[:2]
    film = torch.stack([here, there, here])[None, :, None]
    state = run(EpisodicCompressor(2, unit), film)
    assert state.counts[0, :, 0].tolist() == [2, 1]
    assert torch.equal(state.tokens[0, :, 0], torch.stack([here, there]))


@pytest.mark.parametrize("unit", ["frame", "position"])
def test_of_frames_that_are_all_alike_the_first_two_merge(unit):
    still = torch.rand(1, 1, 4, 300).expand(2, 5, 4, 300)
    state = run(EpisodicCompressor(4, unit), still)
    assert (state.counts == torch.tensor([2.0, 1, 1, 1])[None, :, None]).all()


def test_an_unknown_unit_is_refused():
    with pytest.raises(ConfigError, match=r"memory.unit is 'clip'; choose 'frame' or 'position'"):
        EpisodicCompressor(3, unit="clip")
