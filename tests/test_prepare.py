import json

import pytest

from mmavlm import prepare
from mmavlm.data.sources import FrameSource
from mmavlm.prepare import reader_of
from public_sets import write_json, write_public_sets

SETS = ("breakfast", "coin", "msvd_qa", "msrvtt_caption", "youcook2_caption")
FOLDERS = ("breakfast", "coin", "msvd", "msrvtt", "youcook2")
FILMS = {"train": ["a", "b"], "val": ["c"], "test": []}


@pytest.fixture
def root(tmp_path):
    """Sets whose annotations say 12 frames a film, and folders that hold 12, but 11 of film b."""
    write_public_sets(tmp_path, FILMS, frames=12)
    for folder in FOLDERS:
        for film, count in (("a", 12), ("b", 11), ("c", 12)):
            frames = tmp_path / folder / "frames" / film
            frames.mkdir(parents=True)
            for k in range(count):
                (frames / f"frame{k + 1:06d}.jpg").touch()
    return tmp_path


def main(arguments):
    """The exit code of the command."""
    try:
        prepare.main(arguments)
    except SystemExit as stop:
        return stop.code
    return 0


def told(capsys):
    return " ".join(capsys.readouterr().err.split())


def counts_of(path):
    content = json.loads(path.read_text())
    return {
        entry.get("video", key): entry.get("frame_length", entry.get("num_frames_actual"))
        for key, entry in content.items()
    }


@pytest.mark.parametrize("name", SETS)
def test_films_with_another_number_of_frames_are_named(root, capsys, name):
    assert main([name, f"root={root}"]) == 1
    shown = told(capsys)
    assert "b: 12 said, 11 there" in shown
    assert "1 differ, 0 have no frames" in shown
    assert "add write_counts=true" in shown
    assert not list(root.rglob("*.counted.json"))


@pytest.mark.parametrize(("name", "folder"), list(zip(SETS, FOLDERS, strict=True)))
def test_corrected_counts_go_into_a_copy_that_the_reader_takes(root, capsys, name, folder):
    before = {p: p.read_bytes() for p in (root / folder / "annotation").rglob("*.json")}
    assert main([name, f"root={root}", "write_counts=true"]) == 0
    assert "data.reader.counted=true" in told(capsys)
    assert all(path.read_bytes() == content for path, content in before.items())
    (copy,) = (root / folder / "annotation").glob("*.counted.json")
    expected = {"a": 12, "b": 11} | ({"c": 12} if name == "coin" else {})
    assert counts_of(copy) == expected
    reader = reader_of(name)
    reader.files.counted = True
    items = reader(root, "train", None)
    assert {item.video_id: item.film.grid.frames for item in items} == {"a": 12, "b": 11}


def test_everything_but_the_counts_stays_as_it_was(root):
    path = root / "msrvtt/annotation/cap_train.json"
    content = json.loads(path.read_text())
    content["0"]["note"] = {"kept": ["as", "it", "is", "é"]}
    write_json(path, content)
    main(["msrvtt_caption", f"root={root}", "write_counts=true"])
    copy = json.loads(path.with_name("cap_train.counted.json").read_text())
    assert list(copy) == list(content)
    for key, entry in content.items():
        frames = 11 if entry["video"] == "b" else 12
        assert copy[key] == {**entry, "frame_length": frames}


def test_a_copy_follows_what_is_there_when_it_is_written_again(root):
    arguments = ["breakfast", f"root={root}", "write_counts=true"]
    assert main(arguments) == 0
    (root / "breakfast/frames/b/frame000012.jpg").touch()
    assert main(arguments) == 0
    assert counts_of(root / "breakfast/annotation/train.counted.json") == {"a": 12, "b": 12}


def test_entries_of_no_use_stay_as_they_are_and_are_told(root, capsys):
    path = root / "coin/annotation/COIN.json"
    content = json.loads(path.read_text())
    del content["a"]["num_frames_actual"]
    content["../x"] = {**content["c"]}
    (root / "coin/frames/c/frame000005.jpg").unlink()
    content["d"] = {**content["c"]}
    write_json(path, content)
    assert main(["coin", f"root={root}", "write_counts=true"]) == 0
    shown = told(capsys)
    assert "0 films agree, 1 differ, 1 have no frames, 3 entries cannot be used" in shown
    assert "entry 'a': key 'num_frames_actual' is missing" in shown
    assert "'../x' leads out of" in shown
    assert "frame000005.jpg is missing" in shown
    assert "d: no folder of frames" in shown
    copy = json.loads(path.with_name("COIN.counted.json").read_text())
    assert copy == {**content, "b": {**content["b"], "num_frames_actual": 11}}


def test_many_differences_are_counted_and_the_first_of_them_named(tmp_path, capsys):
    films = [f"film{i:02d}" for i in range(30)]
    write_public_sets(tmp_path, {"train": films, "val": ["v"], "test": []}, frames=3)
    for film in films:
        (tmp_path / "coin/frames" / film).mkdir(parents=True)
        (tmp_path / "coin/frames" / film / "frame000001.jpg").touch()
    assert main(["coin", f"root={tmp_path}"]) == 1
    shown = told(capsys)
    assert "film19: 3 said, 1 there … and 10 more" in shown
    assert "film20" not in shown


def test_films_are_extracted_and_counted_in_one_go(make_clip, tmp_path, capsys):
    write_public_sets(tmp_path, {"train": ["a"], "val": ["c"], "test": []}, frames=12)
    make_clip("msvd/videos/a.mp4", 12)
    make_clip("msvd/videos/c.mp4", 13)
    (tmp_path / "msvd/annotation/qa_test.json").unlink()
    arguments = ["msvd_qa", f"root={tmp_path}", "workers=1", "short_side=24"]
    assert main(arguments) == 1
    shown = told(capsys)
    assert "2 films extracted, 0 were complete, 0 failed" in shown
    assert "c: 12 said, 13 there" in shown
    assert len(FrameSource(tmp_path / "msvd/frames/a", 10.0).times_s) == 12
    assert main([*arguments, "write_counts=true"]) == 0
    assert "0 films extracted, 2 were complete" in told(capsys)
    assert main([*arguments, f"videos={tmp_path / 'elsewhere'}"]) == 1
    assert "elsewhere is no folder" in told(capsys)


def test_lvu_counts_its_frames_by_a_key_of_its_own(tmp_path, capsys):
    film = {"duration": 5, "num_frames": 50, "genre": "western"}
    path = write_json(tmp_path / "lvu/annotation/train.json", {"a": film})
    (tmp_path / "lvu/frames/a").mkdir(parents=True)
    (tmp_path / "lvu/frames/a/frame000001.jpg").touch()
    assert main(["lvu", f"root={tmp_path}", "write_counts=true"]) == 0
    copy = json.loads(path.with_name("train.counted.json").read_text())
    assert copy == {"a": {**film, "num_frames": 1}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["own_videos"], "'own_videos' is no set that counts frames; choose one of ['activitynet"),
        (["nothing"], "'nothing' is no set that counts frames"),
        (["coin", "root=/nowhere/at/all"], "root=/nowhere/at/all is no folder"),
        (["lvu"], "lvu/annotation/train.json does not exist"),
        (["activitynet_qa"], "activitynet/videos is no folder; give the one that holds the films"),
        (["coin", "videos=/", "quality=0"], "quality must be 1 to 100, got 0"),
    ],
)
def test_a_mistake_ends_with_its_message_and_1(root, capsys, arguments, message):
    where = [] if any(a.startswith("root=") for a in arguments) else [f"root={root}"]
    assert main([*arguments, *where]) == 1
    shown = told(capsys)
    assert "error: " in shown
    assert message in shown
    assert "Traceback" not in shown
