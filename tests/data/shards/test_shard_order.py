import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.data.films import Nearby
from mmavlm.data.order import Draw, EpochOrder
from mmavlm.data.shards.order import ShardOrder, nodes_of


def order_of(shard, *, rank=0, ranks=1, nodes=1, mixed=2, seed=0, visits=None, **kwargs):
    draws = [Draw(range(len(shard)), visits or len(shard))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "is_initialized", lambda: True)
        patch.setattr(torch.distributed, "get_world_size", lambda: ranks)
        patch.setattr(torch.distributed, "get_rank", lambda: rank)
        nearby = Nearby(np.asarray(shard, np.int32), ((max(shard) + 1, mixed),))
        return ShardOrder(EpochOrder(draws, seed, **kwargs), nearby, nodes)


def shares(shard, *, ranks, **kwargs):
    return [list(order_of(shard, rank=rank, ranks=ranks, **kwargs)) for rank in range(ranks)]


SHARDS = st.lists(st.integers(-1, 6), min_size=1, max_size=60).map(
    lambda of: [sorted(set(of) - {-1}).index(one) if one >= 0 else -1 for one in of]
)


@settings(max_examples=80)
@given(SHARDS, st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(0, 3))
def test_ranks_visit_all_items_equally_many_each(shard, nodes, each, mixed, seed):
    ranks = nodes * each
    found = shares(shard, ranks=ranks, nodes=nodes, mixed=mixed, seed=seed)
    assert {len(share) for share in found} == {-(-len(shard) // ranks)}
    times = Counter(visit for share in found for visit in share)
    assert {index for _, index in times} == set(range(len(shard)))
    again = sum(count - 1 for count in times.values())
    assert again == sum(map(len, found)) - len(shard)


@settings(max_examples=50)
@given(st.integers(2, 12), st.integers(1, 9), st.integers(1, 4), st.integers(0, 5))
def test_few_shards_are_open_at_a_time(shards, films, mixed, seed):
    shard = np.repeat(np.arange(shards), films)
    visited = shard[[index for _, index in order_of(shard, mixed=mixed, seed=seed)]]
    first = {one: np.argmax(visited == one) for one in range(shards)}
    last = {one: len(visited) - 1 - np.argmax(visited[::-1] == one) for one in range(shards)}
    for at in range(len(visited)):
        assert sum(first[one] <= at <= last[one] for one in range(shards)) <= mixed


def test_films_of_shards_are_mixed_and_shards_shuffled():
    shard = np.repeat(np.arange(20), 50)
    visited = shard[[index for _, index in order_of(shard, mixed=4)]]
    inner = visited[200:-200].reshape(-1, 50)
    assert np.mean([len(set(window)) for window in inner]) > 3
    alone = shard[[index for _, index in order_of(shard, mixed=1)]]
    opened = list(dict.fromkeys(alone))
    assert opened != sorted(opened)
    assert all(len(set(window)) == 1 for window in alone.reshape(-1, 50))


def test_an_epoch_has_an_order_of_its_own_that_follows_from_the_seed():
    shard, orders = np.repeat(np.arange(6), 4), []
    for epoch in (0, 1, 0):
        order = order_of(shard, seed=3)
        order.set_epoch(epoch)
        orders.append(list(order))
    assert orders[0] == orders[2]
    assert [index for _, index in orders[0]] != [index for _, index in orders[1]]
    assert orders[0] != list(order_of(shard, seed=4))


def test_each_node_fetches_its_own_shards_and_at_most_two_of_others():
    shard = np.repeat(np.arange(40), 25)
    found = shares(shard, ranks=8, nodes=4, mixed=3)
    of_nodes = [
        {int(shard[index]) for share in found[2 * node : 2 * node + 2] for _, index in share}
        for node in range(4)
    ]
    assert sum(map(len, of_nodes)) <= 40 + 3
    at_rank = [{int(shard[index]) for _, index in share} for share in found]
    assert at_rank[0] == at_rank[1] == of_nodes[0]  # ranks of a node take turns


def test_what_was_visited_before_is_left_out_and_the_rest_is_as_it_was():
    shard = np.repeat(np.arange(6), 5)
    whole = list(order_of(shard, rank=1, ranks=4, nodes=2))
    for visits in range(len(whole)):
        order = order_of(shard, rank=1, ranks=4, nodes=2)
        order.begin_at(0, visits)
        assert list(order) == whole[visits:]
        order.set_epoch(1)
        assert len(list(order)) == len(whole)


def test_batches_of_alike_items_are_made_within_a_node():
    shard = np.repeat(np.arange(10), 40)
    lengths = [((7 * i) % 97, 0) for i in range(400)]
    found = shares(shard, ranks=4, nodes=2, lengths=lengths, batch_size=4)
    assert {index for share in found for _, index in share} == set(range(400))
    spans = []
    for node in range(2):
        for at in range(0, 96, 4):
            pair = found[2 * node : 2 * node + 2]
            batch = [lengths[index][0] for share in pair for _, index in share[at : at + 4]]
            spans.append(max(batch) - min(batch))
    assert np.median(spans) < 10


def test_an_epoch_may_visit_some_items_alone():
    order = order_of(np.repeat(np.arange(6), 5), visits=7)
    assert len(list(order)) == len(order) == 7


@pytest.mark.parametrize(
    ("told", "ranks", "nodes"),
    [({}, 8, 1), ({"LOCAL_WORLD_SIZE": "4"}, 8, 2), ({"LOCAL_WORLD_SIZE": "3"}, 8, 1),
     ({"SLURM_NTASKS_PER_NODE": "2"}, 8, 4), ({"SLURM_NTASKS_PER_NODE": "2(x3)"}, 6, 1)],
)  # fmt: skip
def test_how_many_nodes_there_are_is_what_the_launcher_says(monkeypatch, told, ranks, nodes):
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert nodes_of(ranks) == nodes


def test_else_the_trainer_says_how_many_nodes_there_are(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert nodes_of(8, trainers=4) == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert nodes_of(8, trainers=1) == 2


def test_sets_are_mixed_evenly_and_each_keeps_few_shards_open():
    one = Nearby(np.repeat(np.arange(10, dtype=np.int32), 30), ((10, 2),))
    two = Nearby(np.repeat(np.arange(50, dtype=np.int32), 4), ((50, 3),))
    nearby = Nearby.joined([one, None, two], [300, 100, 200])
    assert nearby.groups == ((10, 2), (50, 3))
    assert nearby.shard.max() == 59
    visited = [i for _, i in ShardOrder(EpochOrder([Draw(range(600), 600)], 0), nearby)]
    assert sorted(visited) == list(range(600))
    sets = np.searchsorted([300, 400, 600], visited, side="right").reshape(6, 100)
    for window in sets:
        counts = np.bincount(window, minlength=3)
        assert abs(counts - [50, 17, 33]).max() < 15
    at = nearby.shard[visited]
    for first, last, mixed in ((0, 10, 2), (10, 60, 3)):
        spans = [np.flatnonzero(at == shard)[[0, -1]] for shard in range(first, last)]
        for place in range(600):
            assert sum(start <= place <= stop for start, stop in spans) <= mixed


def test_sets_on_disk_alone_may_come_in_any_order():
    assert Nearby.joined([None, None], [3, 4]) is None


def waited_for(what):
    until = time.monotonic() + 10
    while not what():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_shards_are_fetched_in_order_and_not_too_far_ahead():
    shard = np.repeat(np.arange(5, dtype=np.int32), 20)
    brought = []
    order = order_of(shard, mixed=1)
    opened = list(dict.fromkeys(shard[[index for _, index in order]].tolist()))
    order.nearby = replace(order.nearby, ahead=2)
    order.bring = lambda index: brought.append(int(shard[index]))
    visits = iter(order)
    for at in range(100):
        next(visits)
        if at % 20 == 19:
            there = min(5, at // 20 + 3)
            waited_for(lambda many=there: len(brought) == many)
            assert brought == opened[:there]
    assert next(visits, None) is None


def test_an_epoch_that_is_left_fetches_no_more():
    shard = np.repeat(np.arange(50, dtype=np.int32), 4)
    brought = []
    order = order_of(shard, mixed=1)
    order.nearby = replace(order.nearby, ahead=1)
    order.bring = brought.append
    visits = iter(order)
    next(visits)
    visits.close()
    waited_for(lambda: not any(t.name == "shards ahead" for t in threading.enumerate()))
    assert len(brought) <= 2
