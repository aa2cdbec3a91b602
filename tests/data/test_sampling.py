from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.errors import VideoError
from mmavlm.core.medium import FrameGrid, Medium
from mmavlm.data.sampling import (
    frame_times,
    grid_times,
    lvu_windows,
    rate_times,
    segment_numbers,
    segment_times,
)
from mmavlm.data.sources import FrameSource


def film(start_s=0.0, end_s=None, grid=None):
    return Medium(medium_id="v", source=Path("v.mp4"), start_s=start_s, end_s=end_s, grid=grid)


def segments(frames):
    return FrameGrid(frames, "segments")


@given(duration=st.integers(1, 600), history=st.integers(1, 150), stride=st.integers(1, 50))
def test_lvu_windows_equal_a_slow_restatement(duration, history, stride):
    expected, start = [], 0
    while start == 0 or start <= duration - history:
        expected.append((start, min(start + history - 1, duration)))
        start += stride
    assert lvu_windows(duration, history, stride) == expected


def test_lvu_windows_of_a_film_of_141_seconds():
    assert lvu_windows(141) == [(0, 99), (20, 119), (40, 139)]


@given(
    start=st.integers(0, 200),
    length=st.integers(1, 100),
    num_frames=st.integers(1, 60),
    grid_frames=st.integers(1, 3000),
)
def test_grid_times_are_linspace_rounded_onto_the_grid(start, length, num_frames, grid_frames):
    times_s = grid_times(start, start + length, num_frames, grid_frames, fps=10)
    last = min((start + length) * 10, grid_frames - 1)
    first = min(start * 10, last)
    steps = max(num_frames - 1, 1)
    exact = [first + (last - first) * i / steps for i in range(num_frames)]
    numbers = [t * 10 for t in times_s]
    assert len(numbers) == num_frames
    # half a step is rounded either way
    assert numbers == pytest.approx([round(k) for k in exact], abs=1)
    assert all(abs(k - e) <= 0.5 + 1e-6 for k, e in zip(numbers, exact, strict=True))
    assert all(round(k) == pytest.approx(k) for k in numbers)
    assert numbers == sorted(numbers)
    assert max(numbers) <= grid_frames - 1


def test_a_window_shorter_than_the_clip_repeats_frames():
    assert grid_times(0, 9, 5, 3, fps=10) == [0.0, 0.0, 0.1, 0.2, 0.2]


@given(
    frames=st.integers(1, 300),
    film_fps=st.integers(1, 30),
    start=st.floats(0, 5),
    length=st.floats(0.01, 20),
    num_frames=st.integers(1, 50),
    fps=st.sampled_from([0.25, 1 / 3, 0.5, 1.0, 2.0, 7.0, 40.0]),
)
def test_frames_at_a_rate_equal_a_slow_restatement(
    frames, film_fps, start, length, num_frames, fps
):
    shown = np.arange(frames) / film_fps
    expected, moment = [], 0
    while moment == 0 or (moment + 1) <= length * fps + 1e-6:
        at_s = start + moment / fps
        frame = max([t for t in shown if t <= at_s + 1e-6], default=0.0)
        if frame not in expected:
            expected.append(frame)
        moment += 1
    assert rate_times(shown, start, start + length, num_frames, fps) == expected[:num_frames]


def test_a_film_at_a_rate_has_as_many_frames_as_its_whole_steps():
    shown = np.arange(120) / 24
    assert rate_times(shown, 0.0, 5.0, 100, 2.0) == [0.5 * k for k in range(10)]
    assert rate_times(shown, 0.0, 4.9, 100, 2.0) == [0.5 * k for k in range(9)]
    assert rate_times(shown, 0.0, 5.0, 4, 2.0) == [0.0, 0.5, 1.0, 1.5]
    assert rate_times(shown[:4], 0.0, 4 / 24, 100, 2.0) == [0.0]
    assert rate_times(shown, 1.0, 2.5, 100, 2.0) == [1.0, 1.5, 2.0]


def test_frames_at_a_rate_have_their_own_times_and_not_those_of_the_rate():
    assert rate_times(np.arange(50) / 25, 0.0, 2.0, 100, 2.0) == [0.0, 0.48, 1.0, 1.48]


def test_a_film_of_uneven_frames_keeps_their_times_at_any_rate():
    shown = np.array([0.0, 0.4, 1.1, 4.0, 4.9])
    assert rate_times(shown, 0.0, 5.0, 100, 2.0) == [0.0, 0.4, 1.1, 4.0]


@st.composite
def films(draw):
    """The times of a film's frames, unevenly spaced, and a stretch [start, stop) of them."""
    gaps_ms = draw(st.lists(st.integers(1, 90), min_size=1, max_size=200))
    times_s = np.concatenate(([0.0], np.cumsum(gaps_ms) / 1000))
    first = draw(st.integers(0, len(times_s) - 1))
    return times_s, first, draw(st.integers(first + 1, len(times_s)))


def ends(times_s, first, stop):
    return times_s[first], times_s[stop] if stop < len(times_s) else times_s[-1] + 0.04


def numbers_of(times_s, chosen):
    numbers = np.searchsorted(times_s, chosen).tolist()
    assert [times_s[k] for k in numbers] == chosen
    return numbers


@given(film=films(), num_frames=st.integers(1, 80), seed=st.integers(0, 2**32))
def test_training_draws_one_frame_inside_each_segment(film, num_frames, seed):
    times_s, first, stop = film
    rng = np.random.default_rng(seed)
    numbers = numbers_of(
        times_s, segment_times(times_s, *ends(times_s, first, stop), num_frames, rng)
    )
    count = min(stop - first, num_frames)
    bounds = [first + (stop - first) * i // count for i in range(count + 1)]
    assert len(numbers) == count
    assert all(
        lower <= k < upper for k, (lower, upper) in zip(numbers, pairwise(bounds), strict=True)
    )


@given(film=films(), seed=st.integers(0, 2**32))
def test_a_short_stretch_gives_each_of_its_frames_once(film, seed):
    times_s, first, stop = film
    for rng in (None, np.random.default_rng(seed)):
        stretch_s = ends(times_s, first, stop)
        chosen = segment_times(times_s, *stretch_s, stop - first + 3, rng)
        assert numbers_of(times_s, chosen) == list(range(first, stop))


@given(film=films(), num_frames=st.integers(1, 80))
def test_evaluation_spreads_frames_evenly_from_first_to_last(film, num_frames):
    times_s, first, stop = film
    chosen = segment_times(times_s, *ends(times_s, first, stop), num_frames, None)
    numbers = numbers_of(times_s, chosen)
    gaps = np.diff(numbers)
    assert numbers[0] == first
    assert len(numbers) == 1 or numbers[-1] == stop - 1
    assert len(numbers) == min(num_frames, stop - first)
    assert len(gaps) == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


def test_random_draws_reach_every_frame_of_a_stretch():
    rng, times_s = np.random.default_rng(0), np.arange(30) / 10
    draws = [segment_times(times_s, 0.5, 1.7, 4, rng) for _ in range(200)]
    assert {round(t * 10) for chosen in draws for t in chosen} == set(range(5, 17))


def test_a_stretch_between_two_frames_gives_the_one_shown_there():
    assert segment_times(np.arange(10) / 10, 0.22, 0.28, 8, None) == [0.2]


@given(
    first=st.integers(0, 50),
    length=st.integers(1, 300),
    num_frames=st.integers(1, 100),
    seed=st.integers(0, 2**32),
)
def test_numbers_of_segments_are_t_whatever_the_length(first, length, num_frames, seed):
    """Restated slowly: the integer bounds of T segments, one number from each, empty ones too."""
    stop = first + length
    bounds = [int(first + length * i / num_frames) for i in range(num_frames + 1)]
    drawn = segment_numbers(first, stop, num_frames, np.random.default_rng(seed)).tolist()
    assert len(drawn) == num_frames
    for number, (lower, upper) in zip(drawn, pairwise(bounds), strict=True):
        # a bound may be rounded to either side of a whole number
        assert lower - 1 <= number <= max(upper, lower + 1)
    even = segment_numbers(first, stop, num_frames, None).tolist()
    assert (len(even), even[0]) == (num_frames, first)
    assert num_frames == 1 or even[-1] == stop - 1
    assert drawn == sorted(drawn)
    assert even == sorted(even)
    assert max(*drawn, *even) < stop


def test_segments_of_a_grid_are_those_of_integer_bounds():
    assert segment_numbers(0, 9, 5, None).tolist() == [0, 2, 4, 6, 8]
    assert segment_numbers(0, 3, 6, None).tolist() == [0, 0, 1, 1, 2, 2]
    draws = [segment_numbers(0, 10, 4, np.random.default_rng(k)).tolist() for k in range(200)]
    reached = [sorted(set(column)) for column in zip(*draws, strict=True)]
    assert reached == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]


@pytest.fixture
def source(tmp_path):
    """Thirty frames, 3 s at 10 a second."""
    for k in range(30):
        (tmp_path / f"frame{k + 1:06d}.jpg").touch()
    return FrameSource(tmp_path, 10.0)


def test_an_item_of_a_grid_is_sampled_on_it_also_in_training(source):
    lvu = film(0, 99, FrameGrid(30, "windows"))
    for rng in (None, np.random.default_rng(0)):
        assert frame_times(lvu, source, 20, rng) == grid_times(0, 99, 20, 30, 10.0)


def test_a_stretch_of_a_grid_is_cut_down_to_whole_frames_and_a_whole_film_rounded(source):
    def numbers(asked):
        return [round(t * 10) for t in frame_times(asked, source, 4, None)]

    assert numbers(film(1.0, 2.0, segments(30))) == [10, 13, 16, 20]
    assert numbers(film(grid=segments(30))) == [0, 10, 19, 29]
    assert numbers(film(grid=segments(27))) == [0, 9, 17, 26]


def test_an_item_without_end_goes_on_to_the_end_of_the_film(source):
    times_s = frame_times(film(1.0), source, 5, None)
    assert (times_s[0], times_s[-1]) == (1.0, 2.9)


def test_an_end_behind_the_film_is_drawn_back_to_it(source):
    assert frame_times(film(0, 99.0), source, 5, None)[-1] == 2.9


def test_an_item_that_starts_behind_the_film_is_named(source):
    message = r"lasts 3\.000 s, but is asked about from 3\.5 s on; correct its start_s"
    with pytest.raises(VideoError, match=message):
        frame_times(film(3.5), source, 5, None)


def test_a_grid_that_goes_on_behind_the_film_is_named(source):
    message = r"lasts 3\.000 s, but goes on to 9\.9 s by the 500 frames that .*; get the whole film"
    with pytest.raises(VideoError, match=message):
        frame_times(film(0, 9.9, FrameGrid(500, "windows")), source, 5, None)


def test_an_item_of_segments_is_sampled_on_the_grid_of_its_annotation(source):
    whole = film(grid=segments(28))
    assert frame_times(whole, source, 4, None) == [0.0, 0.9, 1.8, 2.7]
    draws = {t for k in range(99) for t in frame_times(whole, source, 4, np.random.default_rng(k))}
    assert draws == {k / 10 for k in range(28)}


def test_a_stretch_of_segments_ends_with_the_frame_of_its_last_moment(source):
    times_s = frame_times(film(1, 2, segments(30)), source, 11, None)
    assert times_s == [k / 10 for k in range(10, 21)]
    assert frame_times(film(2, 9.9, segments(30)), source, 3, None)[-1] == 2.9


def test_segments_that_go_on_behind_the_film_are_named(source):
    message = r"lasts 3\.000 s, .* goes on to 4\.9 s by the 50 frames that its annotation counts"
    with pytest.raises(VideoError, match=message):
        frame_times(film(grid=segments(50)), source, 5, None)


def test_a_stretch_behind_the_frames_its_annotation_counts_is_named(source):
    message = (
        r"v\.mp4 is asked about from 2\.5 s on, behind the 20 frames that its annotation counts"
    )
    with pytest.raises(VideoError, match=message):
        frame_times(film(2.5, 3, segments(20)), source, 5, None)
