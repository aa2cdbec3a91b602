import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.data.newest import Clock

STEPS = st.lists(st.floats(0.001, 5.0), min_size=1, max_size=30)


def times(own, arrived, has_times=True):
    clock = Clock(has_times)
    return [clock.time_of(*pair) for pair in zip(own, arrived, strict=True)]


def sums(steps, start=0.0):
    total = [start]
    for step in steps:
        total.append(total[-1] + step)
    return total


@given(steps=STEPS, start=st.floats(0, 1e5), burst=st.booleans())
def test_times_are_the_pictures_own_from_the_first_on_however_they_come(steps, start, burst):
    own = sums(steps, start)
    arrived = [7.0] * len(own) if burst else sums(steps, 7.0)
    assert times(own, arrived) == pytest.approx([own_s - start for own_s in own], abs=1e-6)


@given(steps=STEPS, has_times=st.booleans())
def test_without_times_of_their_own_they_are_those_of_arrival(steps, has_times):
    arrived = sums(steps, 7.0)
    own = [None] * len(arrived) if has_times else [0.04 * k for k in range(len(arrived))]
    assert times(own, arrived, has_times) == pytest.approx([a - 7 for a in arrived])


@pytest.mark.parametrize("leap", [-1000.0, -0.6, 60.0, 95443.7])
def test_a_leap_takes_as_long_as_the_picture_took_to_come(leap):
    own = [0.0, 0.5, 1.0, 1.5 + leap, 2.0 + leap]
    assert times(own, [0.1, 0.6, 1.1, 1.6, 2.1]) == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])


def test_a_pause_is_no_leap():
    assert times([0.0, 100.0, 100.5], [0.0, 100.1, 100.6]) == pytest.approx([0.0, 100.0, 100.5])


def test_a_clock_that_falls_behind_is_trusted_no_longer():
    arrived = [0.5 * k for k in range(60)]
    given_s = times([0.001 * k for k in range(60)], arrived)
    assert given_s[:20] == pytest.approx([0.001 * k for k in range(20)])
    assert given_s[25:] == pytest.approx(arrived[25:])


@given(
    own=st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=30),
    waits=st.lists(st.floats(0, 30), min_size=30, max_size=30),
    has_times=st.booleans(),
)
def test_times_never_step_back_and_are_never_far_behind_whatever_is_said(own, waits, has_times):
    arrived = sums(waits)[: len(own)]
    given_s = times(own, arrived, has_times)
    assert given_s[0] == 0
    assert given_s == sorted(given_s)
    assert all(a - t <= 10 + 1e-6 for a, t in zip(arrived, given_s, strict=True))
