from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.nearest import likeness, nearest

NAMES = st.text(st.characters(codec="ascii", categories=["L", "Nd"]), min_size=1, max_size=12)


@given(st.lists(NAMES, min_size=1, unique=True), st.data())
def test_a_known_name_is_nearest_to_itself(known, data):
    name = data.draw(st.sampled_from(known))
    assert likeness(name, nearest(name, known, most=1)[0]) == 1


@given(NAMES, st.lists(NAMES, unique=True), st.integers(1, 5), st.integers(0, 5))
def test_so_many_are_named_as_are_near_and_allowed(name, known, most, least):
    found = nearest(name, known, most, least)
    assert min(least, most, len(known)) <= len(found) <= most
    order = [likeness(name, other) for other in found]
    assert order == sorted(order, reverse=True)
    left = [likeness(name, other) for other in known if other not in found]
    assert not found or not left or min(order) >= max(left)


def test_case_and_underscores_make_no_difference():
    assert likeness("batchSize", "batch_size") == likeness("batch-size", "batch_size") == 1
    assert nearest("zzzz", ["batch_size", "lr"]) == []
