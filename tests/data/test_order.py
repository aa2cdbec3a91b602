from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data.distributed import DistributedSampler

from mmavlm.data.order import Draw, EpochOrder, padding_share


def epochs(order, number):
    found = []
    for epoch in range(number):
        order.set_epoch(epoch)
        found.append(list(order))
    return found


def share_of(monkeypatch, rank, ranks, *args, **kwargs):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: ranks)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    return EpochOrder(*args, **kwargs)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 50), st.integers(1, 7), st.integers(0, 5))
def test_items_are_drawn_equally_often_and_no_visit_twice(size, count, length, seed):
    draw = Draw(list(range(100, 100 + size)), count)
    visits = [tuple(v) for epoch in range(length) for v in draw.visits(epoch, seed).tolist()]
    assert len(set(visits)) == len(visits) == count * length
    times = Counter(index for _, index in visits)
    assert max(times.values()) - min(times.get(i, 0) for i in draw.indices) <= 1


def test_whole_passes_are_visited_in_torchs_own_order():
    theirs = DistributedSampler(range(11), num_replicas=1, rank=0, seed=3)
    ours = EpochOrder([Draw(range(11), 11)], seed=3)
    for epoch in range(3):
        theirs.set_epoch(epoch)
        ours.set_epoch(epoch)
        assert list(ours) == [(epoch, index) for index in theirs]


def test_what_an_epoch_leaves_over_comes_in_the_next():
    first, second = epochs(EpochOrder([Draw(range(10), 5)], seed=1), 2)
    assert {index for _, index in first + second} == set(range(10))
    again = EpochOrder([Draw(range(10), 5)], seed=1)
    again.set_epoch(1)  # as a resumed run does
    assert list(again) == second
    assert epochs(EpochOrder([Draw(range(10), 5)], seed=2), 1) != [first]


LENGTHS = [(4 + (7 * i) % 97, (3 * i) % 11) for i in range(1030)]


@pytest.mark.parametrize("ranks", [1, 3])
def test_grouped_batches_hold_alike_items_each_once_on_any_number_of_ranks(monkeypatch, ranks):
    draws = [Draw(range(1030), 1030)]
    shares = []
    for rank in range(ranks):
        order = share_of(monkeypatch, rank, ranks, draws, seed=0, lengths=LENGTHS, batch_size=4)
        assert len(order) == len(list(order))
        shares.append(list(order))
    visited = Counter(index for share in shares for _, index in share)
    assert set(visited) == set(range(1030))
    assert sum(visited.values()) - 1030 < ranks  # ranks take equally many
    for k in range(1030 // ranks // 4):
        batch = [LENGTHS[index][0] for share in shares for _, index in share[4 * k : 4 * k + 4]]
        assert max(batch) - min(batch) < 20


def test_grouping_saves_padding_and_stays_random():
    draws = [Draw(range(1030), 1030)]
    plain = EpochOrder(draws, seed=0)
    by_length = EpochOrder(draws, seed=0, lengths=LENGTHS, batch_size=16)
    padding = [
        padding_share([LENGTHS[index][0] for _, index in order], 16) for order in (plain, by_length)
    ]
    assert padding[0] > 0.4
    assert padding[1] < 0.05
    first, second = epochs(by_length, 2)
    assert [index for _, index in first] != [index for _, index in second]
    longest = [max(LENGTHS[i][0] for _, i in first[k : k + 16]) for k in range(0, 1024, 16)]
    assert longest != sorted(longest)
    assert epochs(EpochOrder(draws, seed=0, lengths=LENGTHS, batch_size=16), 2) == [first, second]


def test_an_order_goes_on_within_its_epoch_and_is_whole_in_the_next():
    order, again = (EpochOrder([Draw(range(9), 9)], seed=3) for _ in range(2))
    order.set_epoch(1)
    again.begin_at(1, 4)
    again.set_epoch(1)
    assert (again.left_out, list(again)) == (4, list(order)[4:])
    for each in (order, again):
        each.set_epoch(2)
    assert (again.left_out, list(again)) == (0, list(order))
