import hashlib
import json
import re
from collections import Counter

import av
import pytest

from mmavlm.core.errors import ConfigError
from mmavlm.movies import (
    TASKS,
    Movie,
    MovieSetParameters,
    ensure_movie_set,
    plan_movies,
    write_caption,
)

SMALL = {"clips": 6, "duration_s": 2, "fps": 5, "size": 32}


def digests(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    return ensure_movie_set(tmp_path_factory.mktemp("movies") / "set", **SMALL)


def rows(root, split):
    return json.loads((root / "lvu" / "annotation" / f"{split}.json").read_text())


def test_splits_are_70_10_20_percent():
    assert MovieSetParameters(clips=400).split_sizes == {"train": 280, "val": 40, "test": 80}
    assert sum(MovieSetParameters(clips=3).split_sizes.values()) == 3


def test_annotation_has_lvus_keys_and_every_task(small_set):
    ids = []
    for split, count in {"train": 4, "val": 1, "test": 1}.items():
        annotation = rows(small_set, split)
        assert len(annotation) == count
        ids += annotation
        for row in annotation.values():
            assert row["subset"] == split
            assert row["duration"] == 2
            assert row["num_frames"] == 20
            for task, classes in TASKS.items():
                assert row[task] in classes
                assert re.fullmatch(r"\([a-i]\)", row[f"{task}_answer"])
    assert len(set(ids)) == 6


def test_videos_have_the_asked_length_rate_and_size(small_set):
    for split in ("train", "val", "test"):
        for movie_id in rows(small_set, split):
            with av.open(str(small_set / "lvu" / "videos" / f"{movie_id}.mp4")) as file:
                stream = file.streams.video[0]
                assert (stream.width, stream.height, stream.average_rate) == (32, 32, 5)
                assert sum(1 for _ in file.decode(stream)) == 10


def test_scripts_hold_the_labels_of_the_annotation(small_set):
    for split in ("train", "val", "test"):
        for movie_id, row in rows(small_set, split).items():
            script = json.loads((small_set / "lvu" / "script" / f"{movie_id}.json").read_text())
            assert script["labels"] == {task: row[task] for task in TASKS}
            assert Movie.from_dict(script).labels == script["labels"]


def test_caption_rows_point_at_videos_and_match_their_scripts(small_set):
    for split in ("train", "val", "test"):
        lines = (small_set / "captions" / f"{split}.jsonl").read_text().splitlines()
        captions = [json.loads(line) for line in lines]
        assert [caption["id"] for caption in captions] == list(rows(small_set, split))
        for caption in captions:
            assert (small_set / caption["video"]).is_file()
            script = (small_set / "lvu" / "script" / f"{caption['id']}.json").read_text()
            assert caption["caption"] == write_caption(Movie.from_dict(json.loads(script)))


def test_full_set_is_balanced_in_every_split():
    counts = Counter(
        (split, task, label)
        for split, movie in plan_movies(MovieSetParameters(clips=400))
        for task, label in movie.labels.items()
        if task in ("genre", "relationship")
    )
    for split, size in {"train": 280, "val": 40, "test": 80}.items():
        for task in ("genre", "relationship"):
            assert {counts[split, task, label] for label in TASKS[task]} == {size // 4}


def test_sets_are_equal_byte_for_byte_whatever_the_workers(small_set, tmp_path):
    again = ensure_movie_set(tmp_path / "again", **SMALL, workers=2)
    assert digests(again) == digests(small_set)


def test_a_complete_set_is_left_alone(small_set):
    before = {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    assert ensure_movie_set(small_set, **SMALL) == small_set
    assert {path: path.stat().st_mtime_ns for path in small_set.rglob("*")} == before


def test_a_set_broken_off_is_completed(small_set, tmp_path):
    calls = []

    def stop(done, total):
        calls.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_movie_set(tmp_path / "set", **SMALL, progress=stop)
    assert calls == [(1, 6), (2, 6), (3, 6)]
    assert not (tmp_path / "set" / "manifest.json").exists()
    kept = tmp_path / "set" / "lvu" / "videos" / "movie00000.mp4"
    drawn_at = kept.stat().st_mtime_ns
    ensure_movie_set(tmp_path / "set", **SMALL)
    assert kept.stat().st_mtime_ns == drawn_at
    assert digests(tmp_path / "set") == digests(small_set)


def test_a_lost_film_is_made_again_once_the_manifest_is_gone(tmp_path):
    root = ensure_movie_set(tmp_path / "set", **SMALL)
    whole = digests(root)
    (root / "manifest.json").unlink()
    (root / "lvu" / "videos" / "movie00002.mp4").unlink()
    ensure_movie_set(root, **SMALL)
    assert digests(root) == whole


@pytest.mark.parametrize("lost", [[], ["manifest.json"]])
def test_another_set_in_the_folder_is_refused_naming_both(tmp_path, lost):
    root = ensure_movie_set(tmp_path / "set", **SMALL)
    for name in lost:
        (root / name).unlink()
    with pytest.raises(
        ConfigError,
        match=r"made with seed=0, size=32, but seed=5, size=48 is asked for; choose another folder",
    ):
        ensure_movie_set(root, **{**SMALL, "seed": 5, "size": 48})


def test_foreign_lvu_data_is_not_touched(tmp_path):
    annotation = tmp_path / "lvu" / "annotation" / "train.json"
    annotation.parent.mkdir(parents=True)
    annotation.write_text("{}")
    with pytest.raises(ConfigError, match=r"was not made by the movie generator.*empty folder"):
        ensure_movie_set(tmp_path, **SMALL)
    assert annotation.read_text() == "{}"


@pytest.mark.parametrize("content", ["{", "[1]", "5", "[" * 100_000])
def test_a_broken_manifest_is_named(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ConfigError, match=r"manifest\.json is not a movie set's list.*delete the"):
        ensure_movie_set(tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("clips", 2, "at least 3, one for each split"),
        ("seed", -1, "0 or more"),
        ("duration_s", 0.5, "at least 2 seconds"),
        ("fps", 0, "at least 1"),
        ("size", 33, "an even number of pixels, at least 32"),
    ],
)
def test_parameters_that_cannot_be_made_are_named(key, value, expected):
    with pytest.raises(
        ConfigError, match=rf"movie set: {key}={value} cannot be made; give {expected}"
    ):
        MovieSetParameters(**{key: value})
