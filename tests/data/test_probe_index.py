import io
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pytest

from mmavlm.core.errors import VideoError
from mmavlm.data.probe import VideoInfo, probe
from mmavlm.data.probe_index import ProbeIndex
from mp4_boxes import set_edits


@pytest.fixture
def index(tmp_path):
    return ProbeIndex(tmp_path / "index", tmp_path)


def assert_same(one, other):
    for field in fields(VideoInfo):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def replace_unseen(path):
    """Other content of the same size and time: whoever probes now, fails."""
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("clip.mp4", {}),
        ("a/late.mkv", {"pts": [7300 + 150 * i + i % 3 for i in range(30)]}),
        ("clip.avi", {"ticks": 1, "codec": "libx264"}),
    ],
)
def test_what_is_kept_is_what_probing_finds(make_clip, index, name, settings):
    path = make_clip(name, 30, **settings)
    expected = probe(path)
    assert_same(index.look_up(path), expected)
    assert_same(index.look_up(path), expected)


@pytest.mark.parametrize("edits", [[(2.0, 1.3)], [(1.0, 1.7), (0.5, 0.2)]])
def test_what_an_edit_list_hides_is_kept_too(make_clip, index, edits):
    path = set_edits(make_clip("clip.mov", 40), *edits)
    expected = probe(path)
    assert expected.in_order or len(expected.hidden_pts)
    assert_same(index.look_up(path), expected)
    assert_same(index.look_up(path), expected)


def test_a_film_that_is_kept_is_not_read_again(make_clip, index):
    path = make_clip()
    expected = index.look_up(path)
    replace_unseen(path)
    assert_same(index.look_up(path), expected)
    with pytest.raises(VideoError):
        probe(path)


def test_a_film_that_was_replaced_is_probed_anew(make_clip, index):
    index.look_up(make_clip(frames=20))
    assert len(index.look_up(make_clip(frames=30)).frame_pts) == 30


def test_an_index_below_its_root_moves_with_it(make_clip, tmp_path):
    path = make_clip("here/clip.mp4")
    expected = ProbeIndex(tmp_path / "here" / "index", tmp_path / "here").look_up(path)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    moved = tmp_path / "there" / "clip.mp4"
    replace_unseen(moved)
    found = ProbeIndex(tmp_path / "there" / "index", tmp_path / "there").look_up(moved)
    assert found.path == moved
    np.testing.assert_array_equal(found.frame_pts, expected.frame_pts)


def test_films_elsewhere_are_kept_by_their_whole_path(make_clip, tmp_path):
    path = make_clip()
    index = ProbeIndex(tmp_path / "index", tmp_path / "root")
    assert_same(index.look_up(path), probe(path))
    replace_unseen(path)
    assert len(index.look_up(path).frame_pts) == 30


def objects(told):
    """An archive as numpy writes it for Python objects: pickled."""
    buffer = io.BytesIO()
    header = np.array([{"format": "x"}], dtype=object)
    np.savez(buffer, told=header, steps=told, keyframes=told, hidden=told)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"no archive at all",
        lambda content: content[:60] + bytes(40) + content[100:],
        lambda content: objects(np.arange(3)),
    ],
)
def test_a_damaged_file_is_named_and_made_anew(make_clip, index, caplog, damage):
    path = make_clip()
    expected = index.look_up(path)
    kept = index.path(path)
    kept.write_bytes(damage(kept.read_bytes()))
    assert_same(index.look_up(path), expected)
    assert f"{kept}, key frames of {path}, is damaged" in caplog.text
    caplog.clear()
    assert_same(index.look_up(path), expected)
    assert not caplog.records


def test_another_films_table_is_not_taken(make_clip, index, caplog):
    path, other = make_clip("a.mp4", 20), make_clip("b.mp4", 30)
    for film in (path, other):
        index.look_up(film)
    index.path(path).write_bytes(index.path(other).read_bytes())
    assert len(index.look_up(path).frame_pts) == 20
    assert "its header differs" in caplog.text


def test_a_folder_that_cannot_be_written_is_said_once_and_harms_nothing(
    make_clip, tmp_path, caplog
):
    (tmp_path / "file").touch()
    index = ProbeIndex(tmp_path / "file" / "index", tmp_path)
    path = make_clip()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert_same(index.look_up(path), probe(path))
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / 'file' / 'index'} cannot be written (")


def test_any_number_of_writers_leave_whole_tables_and_nothing_else(make_clip, index):
    paths = [make_clip(f"{i}.mp4", 10) for i in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(index.look_up, paths * 8))
    files = [path for path in index.folder.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(map(index.path, paths))
    for path in paths:
        expected = probe(path)
        replace_unseen(path)
        assert_same(index.look_up(path), expected)


def test_a_broken_film_is_named_and_nothing_is_kept(tmp_path, index):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match=r"empty\.mp4 is empty"):
        index.look_up(tmp_path / "empty.mp4")
    assert not index.folder.exists()
