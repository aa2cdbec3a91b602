import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.data.timeline import Told, _going_on, _guessed, _without_gaps

STEP, BACK = 40, 100


def going_on(times, leap=np.inf):
    return _going_on(times, STEP, BACK, leap).tolist()


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=50))
def test_times_always_ascend(times):
    assert (np.diff(going_on(times)) > 0).all()


@given(st.sets(st.integers(-(10**6), 10**6), min_size=1, max_size=50))
def test_times_that_ascend_stay_as_they_are(times):
    assert going_on(sorted(times)) == sorted(times)


def test_a_film_that_is_joined_on_begins_where_the_one_before_it_ends():
    film = list(range(0, 2000, STEP))
    assert going_on(film + film) == list(range(0, 4000, STEP))
    assert going_on(film + [5000 + time for time in film]) == film + [5000 + t for t in film]
    assert going_on(film + [5000 + t for t in film], leap=2000) == list(range(0, 4000, STEP))


def test_a_frame_that_is_late_comes_right_behind_the_one_before_it():
    assert going_on([0, 40, 120, 80, 160]) == [0, 40, 120, 121, 160]


def test_decoding_times_are_taken_where_display_times_do_not_ascend():
    pts = [0, 80, 120, 40, 200, 240, 160]
    told = [Told(p, 40 * i, 40) for i, p in enumerate(pts)]
    assert _guessed(told) == list(range(0, 280, 40))
    assert _guessed([Told(p, d, 40) for d, p, _ in told]) == list(range(0, 280, 40))


def test_last_frames_without_decoding_time_are_counted_on_but_not_beyond_their_display_time():
    told = [Told(p, 40 * i, 40) for i, p in enumerate([0, 80, 120, 40])]
    assert _guessed([*told, Told(999, None, 40), Told(None, None, 40)])[-2:] == [160, 200]
    assert _guessed([*told, Told(140, None, 40)])[-1] == 140


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([None, None, None], [-40, 0, 40]),
        ([None, None, 100, None], [20, 60, 100, 140]),
        ([0, None, None, 200], [0, 40, 80, 200]),
    ],
)
def test_times_that_lack_are_counted_from_those_that_are_there(times, expected):
    filled = _without_gaps(times, [40] * len(times))
    assert np.diff(filled).tolist() == np.diff(expected).tolist()
