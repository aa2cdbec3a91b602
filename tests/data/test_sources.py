import os
import unicodedata

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from mmavlm.core.errors import ConfigError, DataError, VideoError
from mmavlm.core.medium import Medium
from mmavlm.data.pictures import count_frames
from mmavlm.data.sources import FrameSource, inside, locate
from mmavlm.data.video import read_frames


def whole(picture):
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)


@pytest.fixture
def jpegs(tmp_path):
    """Thirty JPEGs, 3 s at 10 a second; picture k is of grey 8·k."""
    folder = tmp_path / "frames" / "film"
    folder.mkdir(parents=True)
    for k in range(30):
        picture = Image.fromarray(np.full((16, 16, 3), 8 * k, dtype=np.uint8))
        picture.save(folder / f"frame{k + 1:06d}.jpg", quality=100)
    return folder


def test_frame_k_of_a_folder_is_the_jpeg_numbered_k_plus_1(jpegs):
    times_s = [0.0, 0.3, 0.3, 2.9]
    frames, found_s = FrameSource(jpegs, 10.0).read(times_s, whole)
    assert frames.shape == (4, 3, 16, 16)
    levels = frames.float().mean((1, 2, 3)) / 8
    torch.testing.assert_close(levels, torch.tensor([0.0, 3.0, 3.0, 29.0]), atol=0.2, rtol=0)
    torch.testing.assert_close(found_s, torch.tensor(times_s))


def test_a_folder_lasts_as_long_as_its_grid_says(jpegs):
    source = FrameSource(jpegs, 10.0)
    assert source.duration_s == pytest.approx(3.0)
    np.testing.assert_allclose(source.times_s, np.arange(30) / 10)
    assert FrameSource(jpegs, 5.0).duration_s == pytest.approx(6.0)


EXIF_TURNS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
    99: lambda p: p,
}


@pytest.mark.parametrize("orientation", EXIF_TURNS)
def test_a_jpeg_is_turned_as_its_exif_data_say(tmp_path, orientation):
    path = tmp_path / "frame000001.jpg"
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:8, :16, 0] = picture[8:, :16, 1] = picture[:8, 16:, 2] = 200
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(picture).save(path, quality=100, subsampling=0, exif=exif)
    frames, _ = FrameSource(tmp_path).read([0.0], whole)
    expected = EXIF_TURNS[orientation](picture).astype(int)
    assert np.abs(frames[0].permute(1, 2, 0).numpy() - expected).max() < 12


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_a_picture_is_a_film_of_one_frame(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:8, :16, 0] = picture[8:, :16, 1] = picture[:8, 16:, 2] = 200
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 5
    how = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    turned = suffix != ".bmp"  # which knows no EXIF
    Image.fromarray(picture).save(path, **how, **({"exif": exif} if turned else {}))
    source = FrameSource.of(Medium(medium_id="a", source=path, kind="picture"))
    expected = (EXIF_TURNS[5] if turned else EXIF_TURNS[1])(picture).astype(int)
    frames, times_s = source.read(source.times_s, whole)
    assert times_s.tolist() == [0.0] == source.times_s.tolist()
    assert np.abs(frames[0].permute(1, 2, 0).numpy() - expected).max() < 12
    (shown,) = source.pictures([0.0])
    assert np.abs(shown - expected).max() < 12
    assert source.duration_s > 0


def test_a_picture_that_is_missing_or_none_is_named(tmp_path):
    def read(path):
        medium = Medium(medium_id="a", source=path, kind="picture")
        return FrameSource.of(medium).read([0.0], whole)

    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(VideoError, match=r"none\.png does not exist"):
        read(tmp_path / "none.png")
    with pytest.raises(VideoError, match=r"text\.png cannot be read: .*; convert it to PNG"):
        read(tmp_path / "text.png")


@pytest.mark.filterwarnings("ignore:.*(Tag data|EXIF|corrupt)")
def test_broken_exif_data_are_no_obstacle(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.ImageDescription] = 1, "a film"
    Image.new("RGB", (8, 8)).save(tmp_path / "frame000001.jpg", exif=exif)
    content = (tmp_path / "frame000001.jpg").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(50):
        damaged = bytearray(content)
        for at in content.index(b"Exif") + random.integers(6, len(exif.tobytes()), 4):
            damaged[at] = random.integers(256)
        (tmp_path / "frame000001.jpg").write_bytes(damaged)
        FrameSource(tmp_path).read([0.0], whole)


def test_pictures_come_one_by_one_as_they_are_read_at_once(make_clip, jpegs):
    for source in (FrameSource(jpegs), FrameSource(make_clip(frames=20))):
        times_s = [0.0, 0.5, 1.1]
        frames, _ = source.read(times_s, whole)
        assert torch.equal(torch.stack([whole(p) for p in source.pictures(times_s)]), frames)


def test_between_and_behind_the_pictures_of_a_folder_the_last_one_is_shown(jpegs):
    levels = [round(p.mean() / 8) for p in FrameSource(jpegs).pictures([0.0, 0.39, 2.97, 9.0])]
    assert levels == [0, 3, 29, 29]


def test_a_film_is_read_as_by_read_frames(make_clip):
    path = make_clip(frames=20)
    source = FrameSource(path, 10.0)
    assert source.duration_s == pytest.approx(2.0)
    np.testing.assert_allclose(source.times_s, np.arange(20) / 10)
    frames, found_s = source.read([0.0, 1.05], whole)
    expected, expected_s = read_frames(path, [0.0, 1.05], whole)
    assert torch.equal(frames, expected)
    assert torch.equal(found_s, expected_s)


def test_a_missing_jpeg_is_named_with_the_count_and_the_remedy(jpegs):
    (jpegs / "frame000005.jpg").unlink()
    message = (
        r"frame000005\.jpg is missing; the folder holds 29 frames\. "
        r"Extract them again, or correct the annotation's count"
    )
    with pytest.raises(VideoError, match=message):
        FrameSource(jpegs, 10.0).read([0.1, 0.4], whole)


def test_a_broken_jpeg_is_named(jpegs):
    (jpegs / "frame000002.jpg").write_bytes(b"no picture")
    with pytest.raises(VideoError, match=r"frame000002\.jpg cannot be read: cannot identify"):
        FrameSource(jpegs, 10.0).read([0.1], whole)


def test_a_jpeg_that_is_cut_off_is_named(jpegs):
    path = jpegs / "frame000002.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(VideoError, match=r"frame000002\.jpg cannot be read: .*truncated"):
        FrameSource(jpegs, 10.0).read([0.1], whole)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(VideoError, match=r"holds no frames \(frame000001\.jpg and so on\)"):
        _ = FrameSource(tmp_path, 10.0).duration_s


def test_auto_takes_frames_where_they_exist_and_the_film_elsewhere(tmp_path, jpegs):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("film.mp4", "other.mkv"):
        (videos / name).touch()
    assert locate(tmp_path, "film") == jpegs
    assert locate(tmp_path, "other") == videos / "other.mkv"
    assert locate(tmp_path, "film", "video") == videos / "film.mp4"
    assert locate(tmp_path, "film", "frames") == jpegs
    assert locate(tmp_path, "other", "frames") == tmp_path / "frames" / "other"


def test_a_source_that_does_not_exist_is_the_place_where_it_is_missed(tmp_path):
    assert locate(tmp_path, "none") == tmp_path / "videos" / "none.mp4"


def test_a_name_may_hold_dots_and_folders(tmp_path):
    path = tmp_path / "videos" / "part" / "a.b.webm"
    path.parent.mkdir(parents=True)
    path.touch()
    assert locate(tmp_path, "part/a.b") == path


def test_an_unknown_kind_of_source_lists_the_kinds(tmp_path):
    message = r"data\.reader\.source='tape' is unknown; choose one of auto, video, frames"
    with pytest.raises(ConfigError, match=message):
        locate(tmp_path, "film", "tape")


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/passwd"])
@pytest.mark.parametrize("kind", ["auto", "video", "frames"])
def test_names_that_lead_out_of_the_root_are_refused(tmp_path, name, kind):
    with pytest.raises(DataError, match=rf"'{name}' leads out of .*stay below it"):
        locate(tmp_path, name, kind)


@pytest.mark.parametrize(
    "name", [r"..\secret", r"a\..\..\secret", r"C:\films\a", "C:a", r"\\host\a"]
)
def test_names_that_lead_out_of_the_root_on_windows_are_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"leads out of .*stay below it"):
        inside(tmp_path, name)


@pytest.mark.parametrize(
    "name",
    ["a\0b", "\ud800", "a" * 300, "a/" + "ü" * 200, "a/" * 3000, ("ü" * 100 + "/") * 15 + "a"],
)
def test_names_that_no_file_can_have_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="is a name that no file can have"):
        locate(tmp_path, name)


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded(jpegs, monkeypatch):
    path = jpegs / "frame000002.jpg"
    Image.new("RGB", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5  # start of frame: length, precision, height, width
    content[at : at + 4] = (20_000).to_bytes(2, "big") * 2
    path.write_bytes(content)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(
        VideoError, match=r"frame000002\.jpg .*(20000×20000 pixels|400000000 pixels)"
    ):
        FrameSource(jpegs, 10.0).read([0.1], whole)


def test_a_link_below_the_root_may_lead_anywhere(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    assert inside(root, "link/film.mp4") == root / "link" / "film.mp4"


def test_names_that_come_back_to_the_root_are_admitted(tmp_path):
    assert inside(tmp_path, "a/../b.mp4") == tmp_path / "b.mp4"


def test_counting_frames_names_the_first_gap(jpegs):
    (jpegs / "frame000005.jpg").unlink()
    with pytest.raises(VideoError, match=r"frame000005\.jpg is missing; the folder holds 29"):
        count_frames(jpegs)


def test_a_film_that_was_replaced_is_looked_at_anew(make_clip):
    path = make_clip(frames=20)
    assert FrameSource(path, 10.0).duration_s == pytest.approx(2.0)
    make_clip(frames=30)
    assert FrameSource(path, 10.0).duration_s == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("A.MP4", "A"),
        ("A.Mkv", "A"),
        ("c.avi", "c.avi"),
        ("c.AVI", "c.avi"),
        ("c.avi.webm", "c.avi"),
        ("d.e.mov", "d.e"),
        (unicodedata.normalize("NFD", "é.mp4"), "é"),
        (unicodedata.normalize("NFC", "é.MP4"), unicodedata.normalize("NFD", "é")),
    ],
)
def test_a_film_is_found_whichever_way_its_name_is_written(tmp_path, file, name):
    path = tmp_path / "videos" / file
    path.parent.mkdir()
    path.touch()
    assert locate(tmp_path, name) == path


def test_a_folder_of_frames_is_found_whichever_way_its_letters_are_composed(tmp_path):
    folder = tmp_path / "frames" / unicodedata.normalize("NFD", "é")
    folder.mkdir(parents=True)
    assert locate(tmp_path, unicodedata.normalize("NFC", "é")) == folder


def test_a_folder_is_listed_once_for_all_films_that_are_missing_in_it(tmp_path, monkeypatch):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "z.MKV").touch()
    listings = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listings.append(folder) or scandir(folder))
    found = [locate(tmp_path, f"{i}") for i in range(100)]
    assert found[7] == tmp_path / "videos" / "7.mp4"
    assert len(listings) == 1


@pytest.mark.parametrize("suffix", [".jpeg", ".JPG", ".JPEG"])
def test_frames_may_have_another_suffix_of_jpeg(jpegs, suffix):
    expected, _ = FrameSource(jpegs, 10.0).read([0.0, 0.2], whole)
    for path in list(jpegs.iterdir()):
        path.rename(path.with_suffix(suffix))
    source = FrameSource(jpegs, 10.0)
    frames, _ = source.read([0.0, 0.2], whole)
    assert torch.equal(frames, expected)
    assert source.duration_s > 0.2


def test_pictures_of_a_folder_may_be_written_to(jpegs):
    lent = []
    FrameSource(jpegs, 10.0).read([0.0], lambda picture: lent.append(picture) or whole(picture))
    assert lent[0].flags.writeable  # torch warns of arrays that are not
