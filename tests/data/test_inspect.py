import json

import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.inspect import Inspection, SplitInspection, inspect
from mmavlm.data.readers import LVUReader, OwnReader

READER = OwnReader(closed=["animal"])


def write(root, split, *rows):
    lines = [
        {"video": video, "prompt": "who?", "answer": answer, "task": task}
        for video, task, answer in rows
    ]
    (root / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))


@pytest.fixture
def root(tmp_path, make_clip):
    for name in ("a.mp4", "b.mp4", "cut.mp4"):
        make_clip(name, 30)
    rows = [("a.mp4", "animal", "cat"), ("b.mp4", "animal", "ant"), ("b.mp4", "open", "yes")]
    write(tmp_path, "train", *rows, ("none.mp4", "animal", "cat"))
    write(tmp_path, "val", ("a.mp4", "animal", "cat"), ("cut.mp4", "animal", "cat"))
    write(tmp_path, "test", ("a.mp4", "open", "no"))
    return tmp_path


def cut_off(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_items_videos_and_classes_are_counted(root):
    splits = inspect(READER, root, None).splits
    train = splits["train"]
    assert (train.items, train.videos, train.problem) == (4, 3, None)
    assert train.classes == {"animal": {"ant": 1, "cat": 2}}
    assert (splits["val"].items, splits["test"].items) == (2, 1)
    assert splits["test"].classes == {}


def test_missing_videos_are_listed(root):
    splits = inspect(READER, root, None).splits
    assert (splits["train"].missing_videos, splits["train"].missing) == (1, ["none.mp4"])
    assert splits["val"].missing == []


def test_a_truncated_film_is_found_by_decoding_alone(root):
    cut_off(root / "cut.mp4")
    assert inspect(READER, root, None).splits["val"].broken_videos == 0
    splits = inspect(READER, root, None, decode=True).splits
    assert splits["val"].broken_videos == 1
    assert "is cut off: its header promises 30 frames" in splits["val"].broken["cut.mp4"]
    assert splits["train"].broken == {}


def test_films_that_end_unseen_are_counted_where_films_are_opened(root):
    def notes(**settings):
        found = inspect(READER, root, None, splits=["train"], **settings).splits["train"].notes
        return [note for note in found if "end unseen" in note]

    assert notes(decode=True, seen_s=2.5) == [
        "2 of 2 stretches of films are longer than the 2.5 s that are seen of each, and end "
        "unseen; raise data.num_frames, or lower data.sample_fps"
    ]
    assert notes(decode=True, seen_s=3.0) == notes(seen_s=1.0) == notes(decode=True) == []


def test_a_broken_annotation_is_the_problem_of_its_split_alone(root):
    (root / "val.jsonl").write_text("{broken")
    splits = inspect(READER, root, None).splits
    assert "val.jsonl, line 1 is not JSON" in splits["val"].problem
    assert splits["train"].problem is None


def test_chosen_splits_alone_are_read(root):
    assert list(inspect(READER, root, None, splits=["test"]).splits) == ["test"]


def test_all_that_is_found_is_one_json_object(root):
    cut_off(root / "cut.mp4")
    found = inspect(READER, root, ["animal", "open"], decode=True).as_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["root"] == str(root)
    assert found["task"] == ["animal", "open"]
    assert set(found["splits"]) == {"train", "val", "test"}


def test_the_table_shows_counts_classes_and_problems(root, capsys):
    cut_off(root / "cut.mp4")
    (root / "test.jsonl").unlink()
    inspect(READER, root, None, decode=True).print()
    shown = " ".join(capsys.readouterr().out.split())
    assert "train · animal: ant 1, cat 2" in shown
    assert "train: missing videos, such as none.mp4" in shown
    assert "val: broken cut.mp4:" in shown
    assert "test: annotation" in shown
    assert "not opened" not in shown
    inspect(READER, root, None).print()
    assert "not opened" in capsys.readouterr().out, "nobody knows whether films are broken"


def test_a_set_without_any_annotation_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"annotation .*train\.jsonl does not exist"):
        inspect(READER, tmp_path, None)


def test_a_missing_root_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.root=.*none does not exist; give the folder"):
        inspect(READER, tmp_path / "none", None)


@pytest.mark.real_data
def test_lvu_without_its_films_is_counted_and_all_of_it_is_missing(real_data):
    found = inspect(LVUReader(), real_data, "relationship")
    counts = {name: split.items for name, split in found.splits.items()}
    assert counts["train"] == 298
    assert counts["test"] == 91
    for split in found.splits.values():
        assert split.problem is None
        assert split.missing_videos == split.videos > 0
        assert sum(split.classes["relationship"].values()) == split.items


def test_a_root_that_is_a_file_is_told(tmp_path):
    (tmp_path / "a.zip").touch()
    with pytest.raises(ConfigError, match=r"data\.root=.*a\.zip is a file; give the folder"):
        inspect(OwnReader(), tmp_path / "a.zip", None)


def test_a_root_with_brackets_is_shown_as_it_is(tmp_path, capsys):
    Inspection("/data/[red]/[/]", [], {"train": SplitInspection()}).print()
    assert "/data/[red]/[/]" in capsys.readouterr().out


def test_films_that_end_before_the_stretch_that_is_asked_about_are_told_of(root):
    rows = [
        {"video": "a.mp4", "prompt": "who?", "answer": "cat", "start_s": at_s} for at_s in (0, 90)
    ]
    rows.append({"video": "b.mp4", "prompt": "who?", "answer": "cat", "start_s": 1})
    (root / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train = inspect(OwnReader(), root, None, decode=True, splits=["train"]).splits["train"]
    assert list(train.broken) == ["a.mp4"]
    assert "is asked about from 90 s on; correct its start_s" in train.broken["a.mp4"]
