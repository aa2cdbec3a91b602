import logging

import pytest

from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.data.broken import BrokenBudget
from mmavlm.data.inspect import inspect


def budget(max_broken, **splits):
    made = BrokenBudget(max_broken)
    for split, count in splits.items():
        made.expect(split, [f"{split}{i}" for i in range(count)])
    return made


def test_a_run_goes_on_up_to_the_share_and_stops_above_it():
    broken = budget(0.1, train=20)
    broken.add(["train0: is empty", "train1: is empty"])
    message = (
        r"3 of 20 train videos are broken or missing, more than data\.max_broken=0\.1 allows:\n"
        r"  train0: is empty\n  train1: is empty\n  train2: has no video stream\n"
        r"mend or remove them \(`python -m mmavlm\.check data=… decode=true` lists all\), "
        r"or raise data\.max_broken"
    )
    with pytest.raises(DataError, match=message):
        broken.add(["train2: has no video stream"])


def test_a_video_counts_once_however_often_it_is_read():
    broken = budget(0.1, train=10)
    for _ in range(5):
        broken.add(["train0: is empty"])
    assert broken.summary() == "1 of 10 videos broken or missing"


def test_no_broken_video_at_all_may_be_asked_for():
    broken = budget(0.0, train=1000)
    broken.add([])
    with pytest.raises(DataError, match=r"1 of 1000 train videos .* data\.max_broken=0 allows"):
        broken.add(["train7: is empty"])


def test_a_small_split_is_not_hidden_behind_a_large_one():
    broken = budget(0.1, train=100, test=5)
    with pytest.raises(DataError, match="1 of 5 test videos"):
        broken.add(["test0: is empty"])


def test_a_long_list_of_broken_videos_is_cut_short():
    broken = budget(0.1, train=30)
    with pytest.raises(DataError, match=r"train9: gone\n  … and 2 more\nmend"):
        broken.add(f"train{i}: gone" for i in range(12))


def test_every_broken_video_is_named_once_in_the_log(caplog):
    broken = budget(1.0, train=30)
    with caplog.at_level(logging.WARNING):
        broken.add(["train0: is empty"])
        broken.add(["train0: is empty"])
        broken.add([f"train{i}: gone" for i in range(1, 13)])
    assert caplog.messages[0] == "broken video train0 left out: is empty"
    assert len(caplog.messages) == 12
    assert caplog.messages[-1] == "… and 2 more broken videos left out"


class Counted(str):
    """A name that counts how often any of its kind is written out or hashed."""

    __slots__ = ()
    uses = 0

    def __format__(self, spec):
        Counted.uses += 1
        return str.__format__(self, spec)

    def __hash__(self):
        Counted.uses += 1
        return str.__hash__(self)

    __eq__ = str.__eq__


def test_each_broken_video_is_looked_up_and_not_searched_for():
    names = [Counted(f"film {i}") for i in range(500)]
    entries = [f"{name}: gone: for ever" for name in names]
    broken = BrokenBudget(1.0)
    broken.expect("train", names)
    Counted.uses = 0
    broken.add(entries)
    assert broken.reasons["film 7"] == "gone: for ever"
    assert len(broken.reasons) == 500
    assert Counted.uses <= 10 * 500


def test_each_missing_video_is_looked_up_and_not_searched_for(tmp_path):
    names = [Counted(f"film {i}") for i in range(500)]
    items = [
        Item.question(
            item_id=n, video_id=n, source=tmp_path / str(n), prompt="", target="", task=""
        )
        for n in names
    ]
    Counted.uses = 0
    found = inspect(lambda root, split, task: items, tmp_path, None, splits=["val"])
    assert found.splits["val"].missing_videos == 500
    assert Counted.uses <= 10 * 500


def test_a_name_with_a_colon_stays_whole():
    broken = BrokenBudget(1.0)
    broken.expect("train", ["part: one", "part"])
    broken.add(["part: one: is empty"])
    assert broken.reasons == {"part: one": "is empty"}
