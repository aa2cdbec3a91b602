"""Groups of training items that come equally often in an epoch."""

import json
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.balance import drawn
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.mix import MixedDataModule
from mmavlm.data.order import EpochOrder
from mmavlm.data.readers import OwnReader

# 12 rows of a, 3 of b, 1 of c; every question of a has more answers of one kind
ROWS = [("a", "is it red?", "yes")] * 6 + [("a", "is it red?", "no")] * 2
ROWS += [("a", "is it far?", "no")] * 4 + [("b", "is it far?", "yes")] * 2
ROWS += [("b", "is it far?", "no"), ("c", "is it red?", "no")]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    (folder / "f.mp4").touch()
    lines = [
        json.dumps(
            {"video": "f.mp4", "prompt": prompt, "answer": answer, "task": task, "id": f"{n}"}
        )
        for n, (task, prompt, answer) in enumerate(ROWS)
    ]
    for split in ("train", "val", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


def data(root, **given):
    settings = {"batch_size": 4, "num_workers": 0, "image_size": 16, "num_frames": 2, **given}
    return VideoDataModule(OwnReader(), root, **settings)


def visited(module, epochs=1, key="task"):
    """How often items of each task, prompt or target are visited in some epochs."""
    order, items = EpochOrder(module.draws(), 0), module.items("train")
    times = Counter()
    for epoch in range(epochs):
        order.set_epoch(epoch)
        times.update(getattr(items[index], key) for _, index in order)
    return times


def test_groups_come_equally_often_in_an_epoch_as_long_as_before(root):
    times = visited(data(root, sampling={"equal": ["task"]}))
    assert sum(times.values()) == len(ROWS)
    assert sorted(times.values()) == [5, 5, 6]
    assert visited(data(root, sampling={"equal": ["task"]}, epoch_items=30)) == {
        "a": 10, "b": 10, "c": 10,
    }  # fmt: skip


def test_items_of_a_group_are_visited_equally_often_over_epochs(root):
    module = data(root, sampling={"equal": "task"}, epoch_items=12)
    times = visited(module, epochs=3, key="item_id")
    assert {times[f"{n}"] for n in range(12)} == {1}  # 4 of 12 in each epoch
    assert {times[f"{n}"] for n in range(12, 15)} == {4}
    assert times["15"] == 12


def test_answers_are_balanced_within_each_question_and_questions_keep_their_share(root):
    module = data(root, sampling={"equal": ["answer"], "within": ["prompt"]}, epoch_items=1600)
    order, items = EpochOrder(module.draws(), 0), module.items("train")
    times = Counter((items[index].prompt, items[index].target) for _, index in order)
    assert times == {
        ("is it red?", "yes"): 450, ("is it red?", "no"): 450,
        ("is it far?", "yes"): 350, ("is it far?", "no"): 350,
    }  # fmt: skip


def test_a_group_may_be_of_several_keys(root):
    times = visited(
        data(root, sampling={"equal": ["task", "answer"]}, epoch_items=50), key="target"
    )
    assert times == {"yes": 20, "no": 30}  # a, b: yes and no; c: no


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=30), st.integers(0, 500))
def test_every_part_has_its_share_of_an_epoch_or_the_least_there_is(shares, more):
    visits = len(shares) + more
    draws = drawn([([n], share) for n, share in enumerate(shares)], visits)
    counts = [draw.count for draw in draws]
    assert sum(counts) == visits
    exact = [share * visits / sum(shares) for share in shares]
    if min(exact) >= 1:
        assert all(abs(count - want) < 1 + 1e-6 for count, want in zip(counts, exact, strict=True))
    assert min(counts) >= 1


def test_remainders_fall_on_no_group_more_than_on_others():
    counts = [draw.count for draw in drawn([([n], 2.5) for n in range(400)], 1000)]
    assert sum(counts[::2]) == pytest.approx(500, abs=30)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_groups_and_a_broken_off_epoch_goes_on_where_it_was(monkeypatch, root, ranks):
    module = data(root, sampling={"equal": ["task"]}, epoch_items=30)
    tasks = [item.task for item in module.items("train")]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: ranks)
    times = Counter()
    for rank in range(ranks):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        order, again = (
            EpochOrder(module.draws(), 1, lengths=[(2, 3)] * 16, batch_size=2) for _ in range(2)
        )
        again.begin_at(0, 4)
        assert list(again) == list(order)[4:]
        times.update(tasks[index] for _, index in order)
    assert times == {"a": 10, "b": 10, "c": 10}


def test_a_mix_balances_each_of_its_sets_and_keeps_their_shares(root):
    sets = {"one": data(root), "two": data(root, sampling={"equal": ["prompt"]})}
    settings = {"num_workers": 0, "image_size": 16, "epoch_items": 60}
    mixed = MixedDataModule(
        sets, weights={"one": 1, "two": 1}, sampling={"equal": ["task"]}, **settings
    )
    assert visited(mixed) == {f"{name}/{task}": 10 for name in sets for task in "abc"}
    sets = {"one": data(root), "two": data(root, sampling={"equal": ["task"]})}
    alone = visited(MixedDataModule(sets, weights={"one": 1, "two": 1}, **settings))
    assert alone["two/c"] == 10 > alone["one/c"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"sampling": {"equal": ["director"]}}, "by 'director', which item '0' does not have"),
        ({"sampling": {"equal": ["task"]}, "task": "a"}, "one task alone, such as 'a'"),
        ({"sampling": {"equal": "task", "within": "task"}}, "of equal task have one task alone"),
        ({"sampling": {"equal": ["task"]}, "repeat": {"a": 2}}, "both say how often"),
        ({"sampling": {"equal": ["task"]}, "epoch_items": 2}, "2 items cannot show 3 groups"),
        ({"sampling": {"equal": []}}, r"data\.sampling\.equal is empty"),
        ({"sampling": "task"}, r"data\.sampling='task': give keys"),
        ({"sampling": {"equal": ["task"], "without": ["a"]}}, "give keys of groups"),
        ({"epoch_items": 0}, r"data\.epoch_items must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_balanced_is_named(root, given, complaint):
    with pytest.raises((ConfigError, DataError), match=complaint):
        data(root, **given).draws()


def test_without_a_setting_items_are_shown_as_repeat_says(root):
    assert visited(data(root)) == {"a": 12, "b": 3, "c": 1}
    assert visited(data(root, repeat={"c": 5})) == {"a": 12, "b": 3, "c": 5}
    assert visited(data(root, epoch_items=8), epochs=2) == {"a": 12, "b": 3, "c": 1}
