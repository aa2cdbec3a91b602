"""Twins of training films: how often an epoch shows them, and what cannot be read."""

import json
from collections import Counter

import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.mix import MixedDataModule
from mmavlm.data.order import EpochOrder
from mmavlm.data.readers import OwnReader

TWIN = {"counterfactual_of": "f.mp4", "removed": "cat"}


def write(root, name, tasks, **more):
    rows = [
        {
            "video": "f.mp4",
            "prompt": "a cat?",
            "answer": "no",
            "task": task,
            "id": f"{name}{n}",
            **more,
        }
        for n, task in enumerate(tasks)
    ]
    (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "f.mp4").touch()
    for split in ("train", "val", "test"):
        write(tmp_path, split, "aaaaaabb")
    write(tmp_path, "counterfactual", "abbb", **TWIN)
    return tmp_path


def data(root, **given):
    settings = {
        "num_workers": 0,
        "image_size": 16,
        "num_frames": 2,
        "counterfactual": True,
        **given,
    }
    return VideoDataModule(OwnReader(), root, **settings)


def visited(module, epochs=1):
    order, items = EpochOrder(module.draws(), 0), module.items("train")
    times = Counter()
    for epoch in range(epochs):
        order.set_epoch(epoch)
        times.update(items[index].item_id for _, index in order)
    return times


def test_half_of_an_epoch_as_long_as_before_are_twins(root):
    module = data(root)
    times = visited(module)
    assert sum(times.values()) == 8
    assert {name: times[name] for name in times if name.startswith("counter")} == {
        f"counterfactual{n}": 1 for n in range(4)
    }  # fmt: skip
    assert set(visited(module, epochs=2).values()) == {1, 2}  # of 8 films 4 in each epoch
    assert len(module.items("val")) == len(module.items("test")) == 8


def test_a_share_of_twins_may_be_given_and_an_epochs_length(root):
    times = visited(data(root, counterfactual_share=0.25, epoch_items=32))
    assert sum(n for name, n in times.items() if name.startswith("counter")) == 8
    assert sum(times.values()) == 32


def test_groups_are_balanced_among_films_and_among_twins(root):
    module = data(root, sampling={"equal": ["task"]}, epoch_items=48)
    tasks = {item.item_id: (item.item_id[:5], item.task) for item in module.items("train")}
    times = Counter()
    for name, number in visited(module).items():
        times[tasks[name]] += number
    assert times == {
        ("train", "a"): 12, ("train", "b"): 12, ("count", "a"): 12, ("count", "b"): 12,
    }  # fmt: skip


def test_a_mix_shows_twins_in_each_of_its_sets(root):
    sets = {name: data(root, counterfactual=None) for name in ("one", "two")}
    mixed = MixedDataModule(sets, counterfactual=True, image_size=16, num_workers=0)
    times = visited(mixed)
    assert sum(times.values()) == 16  # of each as many as without twins
    assert sum(n for name, n in times.items() if "counterfactual" in name) == 8


def test_without_the_setting_no_twin_is_read(root):
    (root / "counterfactual.jsonl").unlink()
    assert visited(data(root, counterfactual=None)) == {f"train{n}": 1 for n in range(8)}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"counterfactual": "yes"}, r"data\.counterfactual must be true or false, got 'yes'"),
        ({"counterfactual_share": 0}, r"data\.counterfactual_share must be above 0, got 0"),
        ({"counterfactual_share": 1}, r"data\.counterfactual_share must be below 1, got 1"),
    ],
)
def test_settings_that_say_no_share_are_refused(root, given, complaint):
    with pytest.raises(ConfigError, match=complaint):
        data(root, **given)


def test_rows_that_are_no_twins_and_a_missing_file_are_named(root):
    write(root, "counterfactual", "a")
    with pytest.raises(DataError, match=r"row 'counterfactual0' has no 'counterfactual_of'"):
        data(root).items("train")
    (root / "counterfactual.jsonl").unlink()
    with pytest.raises(DataError, match=r"there is no .*counterfactual\.jsonl; it has rows of"):
        data(root).items("train")


def test_twins_of_films_that_training_does_not_show_are_refused(root):
    write(root, "counterfactual", "a", **{**TWIN, "counterfactual_of": "other.mp4"})
    with pytest.raises(DataError, match=r"a twin of 'other\.mp4', which is no film of training"):
        data(root).items("train")
