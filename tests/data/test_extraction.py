import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.data.extraction import SETTINGS_NAME, Extraction, extract, extract_all, plan
from mmavlm.data.probe import probe
from mmavlm.data.sources import FrameSource
from mmavlm.data.video import read_frames
from mp4_boxes import set_edits


def whole(picture):
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)


def pictures(folder):
    return sorted(path.name for path in folder.glob("*.jpg"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("fps", [10, 24, 7])
def test_the_jpegs_of_a_film_agree_with_the_film(make_clip, tmp_path, fps):
    film = make_clip(frames=50, fps=fps)
    count = extract(film, tmp_path / "out", Extraction(quality=100))
    source = FrameSource(tmp_path / "out", 10.0)
    assert count == len(source.times_s)
    assert source.duration_s == pytest.approx(FrameSource(film, 10.0).duration_s, abs=0.1)
    times_s = source.times_s.tolist()
    pictures, _ = source.read(times_s, whole)
    frames, _ = read_frames(film, times_s, whole)
    error = (pictures.float() - frames.float()).abs().mean((1, 2, 3))
    assert error.max() < 7, "JPEG halves the resolution of colours"
    neighbours = (frames[1:].float() - frames[:-1].float()).abs().mean((1, 2, 3))
    assert neighbours[neighbours > 0].min() > 30, "frames must differ by more than JPEG's error"


def test_frame_k_is_the_one_shown_at_k_over_fps(make_clip, tmp_path):
    film = make_clip(frames=20, pts=[0, 150, 290, 310, *range(400, 2000, 100)])
    assert extract(film, tmp_path / "out", Extraction(fps=5)) == 10
    frames, _ = read_frames(film, [k / 5 for k in range(10)], whole)
    for k in range(10):
        picture = whole(np.asarray(Image.open(tmp_path / "out" / f"frame{k + 1:06d}.jpg")))
        assert (picture.float() - frames[k].float()).abs().mean() < 7


@pytest.mark.parametrize(("short_side", "size"), [(24, (32, 24)), (48, (64, 48)), (256, (64, 48))])
def test_the_short_side_is_shrunk_and_never_enlarged(make_clip, tmp_path, short_side, size):
    extract(make_clip(frames=2), tmp_path / "out", Extraction(short_side=short_side))
    assert Image.open(tmp_path / "out" / "frame000001.jpg").size == size


def test_quality_reaches_the_jpegs(make_clip, tmp_path):
    film = make_clip(frames=2)
    for quality in (20, 95):
        extract(film, tmp_path / str(quality), Extraction(quality=quality))
    first = "frame000001.jpg"
    small, large = ((tmp_path / q / first).stat().st_size for q in ("20", "95"))
    assert small < large / 2


def test_a_film_that_breaks_off_leaves_no_folder(make_clip, tmp_path):
    film = make_clip(frames=60)
    film.write_bytes(film.read_bytes()[:-9000])
    with pytest.raises(VideoError, match="cut off"):
        extract(film, tmp_path / "frames" / "out", Extraction())
    assert names(tmp_path / "frames") == []


def test_what_an_interrupted_run_left_is_begun_anew(make_clip, tmp_path):
    rest = tmp_path / ".out.partial"
    rest.mkdir()
    (rest / "frame009999.jpg").touch()
    extract(make_clip(frames=3), tmp_path / "out", Extraction())
    assert pictures(tmp_path / "out") == [f"frame{k:06d}.jpg" for k in (1, 2, 3)]
    assert not rest.exists()


def test_complete_folders_are_not_touched_again(make_clip, tmp_path):
    film = make_clip("videos/a.mp4", 3)
    other = make_clip("videos/page/b.c.mkv", 3)
    (tmp_path / "frames" / "a").mkdir(parents=True)
    todo, complete = plan(tmp_path / "videos", tmp_path / "frames", Extraction())
    assert todo == {other: tmp_path / "frames" / "page" / "b.c"}
    assert complete == 1
    assert film not in todo


def test_a_failure_of_the_disk_stops_all(make_clip, tmp_path):
    film = make_clip("videos/a.mp4", 3)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        extract_all({film: tmp_path / "file" / "a"}, Extraction(), 1, Console(quiet=True))


@pytest.mark.real_data
def test_a_real_film_gives_pictures_to_its_end(real_data, tmp_path):
    film = real_data / "video" / "cooking_70s.mp4"
    count = extract(film, tmp_path / "out", Extraction(fps=0.5))
    assert count == int(np.ceil(probe(film).duration_s * 0.5))
    assert Image.open(tmp_path / "out" / "frame000001.jpg").size == (455, 256)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 0}, "fps must be above 0, got 0"),
        ({"short_side": 0}, "short_side must be at least 1 pixel, got 0"),
        ({"quality": 101}, "quality must be 1 to 100, got 101"),
    ],
)
def test_numbers_out_of_range_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        Extraction(**settings)


def test_a_folder_without_films_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"videos=.*none is no folder; give the one that holds"):
        plan(tmp_path / "none", tmp_path, Extraction())
    with pytest.raises(ConfigError, match=r"videos=.* holds no films \(\.mp4, \.mkv, "):
        plan(tmp_path, tmp_path, Extraction())


def test_folders_of_an_earlier_version_are_taken_and_named(make_clip, tmp_path, caplog):
    film = make_clip("films/a.mp4", frames=2)
    extract(film, tmp_path / "frames/a", Extraction())
    assert plan(tmp_path / "films", tmp_path / "frames", Extraction()) == ({}, 1)
    assert not caplog.records
    written = tmp_path / "frames/a" / SETTINGS_NAME
    told = json.loads(written.read_text())
    del told["decoding_version"]
    written.write_text(json.dumps(told))
    assert plan(tmp_path / "films", tmp_path / "frames", Extraction()) == ({}, 1)
    assert "frames/a and 0 more were extracted by a version that showed mirrored" in caplog.text


def test_a_film_with_edits_gives_the_pictures_that_it_shows(make_clip, tmp_path):
    film = set_edits(make_clip("clip.mov", 40), (2.0, 1.3))
    assert extract(film, tmp_path / "out", Extraction()) == 20


def test_films_that_would_share_a_folder_are_named(tmp_path):
    for name in ("a.mkv", "a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    message = r"a\.mkv and a\.mp4 would both be extracted to .*frames/a; keep one of them"
    with pytest.raises(ConfigError, match=message):
        plan(tmp_path, tmp_path / "frames", Extraction())


@pytest.mark.parametrize("content", ["[]", "{", "5", '{"fps": "ten"}', "[" * 100_000])
def test_a_folder_that_does_not_say_how_it_was_made_is_named(make_clip, tmp_path, content):
    film = make_clip("films/a.mp4", frames=2)
    extract(film, tmp_path / "frames/a", Extraction())
    (tmp_path / "frames/a/extraction.json").write_text(content)
    with pytest.raises(ConfigError, match=r"extraction\.json does not say how .*a was extracted"):
        plan(tmp_path / "films", tmp_path / "frames", Extraction())


def test_a_film_with_a_broken_time_is_refused_before_millions_of_pictures(make_clip, tmp_path):
    film = make_clip("late.mkv", frames=4, ticks=1, pts=[0, 1, 2, 30_000_000])
    with pytest.raises(VideoError, match=r"late\.mkv shows frame 3 of 4 for 3000000 s"):
        extract(film, tmp_path / "out", Extraction())
    assert not (tmp_path / "out").exists()
