import struct
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path
from weakref import WeakSet

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from clips import clip_picture
from mmavlm.core.errors import ConfigError, DataError, VideoError
from mmavlm.core.medium import Medium
from mmavlm.data.live import film_frames, given_frames
from mmavlm.data.sampling import StretchError, frame_times
from mmavlm.data.sources import FrameSource
from mmavlm.data.transforms import ClipTransform

SIZE = 24
TURNED = (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)  # a quarter clockwise
TRANSFORM = ClipTransform(SIZE, None)


def as_trained(path, fps, start_s=0.0, end_s=None):
    """Frames and times that training takes of a film, all at once."""
    source = FrameSource(path)
    medium = Medium(medium_id="film", source=path, start_s=start_s, end_s=end_s)
    times_s = frame_times(medium, source, 10_000, None, fps)
    frames, found_s = source.read(times_s, TRANSFORM)
    torch.testing.assert_close(found_s.double(), torch.tensor(times_s, dtype=torch.double))
    return frames, found_s


def assert_equal_to_trained(path, fps, start_s=0.0, end_s=None):
    frames, times_s = as_trained(path, fps, start_s, end_s)
    live = list(film_frames(path, fps, SIZE, start_s=start_s, end_s=end_s))
    assert torch.equal(torch.stack([f.frame for f in live]), frames)
    torch.testing.assert_close(torch.tensor([f.time_s for f in live]), times_s)
    assert {f.missed for f in live} == {0}
    return live


@pytest.mark.parametrize("fps", [2, 2.9, 10, 25])
def test_a_film_gives_one_by_one_the_frames_that_training_takes(make_clip, fps):
    live = assert_equal_to_trained(make_clip(frames=40), fps)
    assert len(live) == min(int(4 * fps), 40)


def test_a_stretch_of_a_film_gives_its_frames_at_the_times_of_the_film(make_clip):
    live = assert_equal_to_trained(make_clip(frames=40), 5, start_s=1.0, end_s=2.6)
    assert [f.time_s for f in live] == pytest.approx([1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.4])


def test_films_of_ragged_frame_rate_go_by_presentation_time(make_clip):
    gaps = np.random.default_rng(0).integers(20, 900, 30)
    path = make_clip(frames=31, pts=[0, *map(int, gaps.cumsum())])
    live = assert_equal_to_trained(path, 4)
    assert all(a.time_s < b.time_s for a, b in pairwise(live))


def test_a_folder_of_frames_is_watched_as_a_film(tmp_path):
    for k in range(20):
        Image.fromarray(clip_picture("folder", k)).save(tmp_path / f"frame{k + 1:06d}.jpg")
    live = assert_equal_to_trained(tmp_path, 2)
    assert [f.time_s for f in live] == [0.0, 0.5, 1.0, 1.5]
    slower = list(film_frames(tmp_path, 2, SIZE, grid_fps=4))
    assert [f.time_s for f in slower] == [0.5 * k for k in range(10)]


def test_a_film_of_a_phone_stands_upright(make_clip):
    path = make_clip(frames=6)
    (upright,) = film_frames(path, 10, 48, end_s=0.1)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 4 + 20 + 16  # behind version, times, ids, layer
    struct.pack_into(">9i", content, matrix, *TURNED)
    path.write_bytes(content)
    (turned,) = film_frames(path, 10, 48, end_s=0.1)
    difference = (turned.frame.float() - upright.frame.rot90(-1, (1, 2)).float()).abs()
    assert difference.max() <= 2  # resizing rounds after each axis


def test_of_a_long_film_few_frames_are_held(make_clip):
    path = make_clip(frames=300)
    for frame in film_frames(path, 10, 224, end_s=0.1):
        assert frame.frame.shape == (3, 224, 224)
    tracemalloc.start()
    try:
        count = sum(1 for _ in film_frames(path, 10, 224))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    pictures = 64 * 48 * 3  # numpy tells tracemalloc of its arrays, torch of none
    assert count == 300
    assert most < 20 * pictures


def test_frames_are_let_go_as_they_are_given(make_clip):
    held = WeakSet()
    for frame in film_frames(make_clip(frames=60), 10, SIZE):
        held.add(frame.frame)
        assert len(held) <= 3


def test_a_film_is_opened_when_its_first_frame_is_asked_for_and_closed_when_it_is_left(make_clip):
    path = make_clip(frames=60)
    process = psutil.Process()
    frames = film_frames(path, 10, SIZE)
    next(frames)
    assert str(path) in [file.path for file in process.open_files()]
    del frames
    assert str(path) not in [file.path for file in process.open_files()]


def test_in_real_time_frames_come_when_the_film_would_show_them(make_clip):
    path = make_clip(frames=8)
    late_s, began_s = [], None
    live = []
    for frame in film_frames(path, 10, SIZE, realtime=True):
        now_s = time.monotonic()
        began_s = now_s if began_s is None else began_s
        late_s.append(now_s - began_s - frame.time_s)
        live.append(frame)
    assert min(late_s) > -0.02  # began is read a moment after the film's own clock has started
    assert sum(1 + frame.missed for frame in live) == 8
    expected, times_s = as_trained(path, 10)
    for frame in live:
        number = round(frame.time_s * 10)
        assert frame.time_s == pytest.approx(float(times_s[number]))
        assert torch.equal(frame.frame, expected[number])


def test_a_reader_slower_than_the_film_misses_frames_and_sees_what_is_now(make_clip):
    path = make_clip(frames=20)
    expected, _ = as_trained(path, 10)
    began_s, number, live = None, -1, []
    for frame in film_frames(path, 10, SIZE, realtime=True):
        began_s = time.monotonic() if began_s is None else began_s
        number += 1 + frame.missed
        assert frame.time_s == pytest.approx(number / 10)
        assert torch.equal(frame.frame, expected[number])
        live.append(frame)
        time.sleep(0.35)
    assert number <= 19
    assert len(live) <= 7
    assert sum(frame.missed for frame in live) >= 10
    assert time.monotonic() - began_s < 4


def test_what_was_missed_for_long_is_left_out_without_decoding(make_clip, monkeypatch):
    path = make_clip(frames=600, gop=12)
    expected, _ = as_trained(path, 10, 49.9)
    clock = iter([0.0, 0.0, 50.0, 50.0])
    asked = []
    pictures = FrameSource.pictures
    monkeypatch.setattr(FrameSource, "pictures", lambda *a: asked.append(len(a[1])) or pictures(*a))
    monkeypatch.setattr("mmavlm.data.live.monotonic", lambda: next(clock))
    frames = film_frames(path, 10, SIZE, realtime=True)
    assert next(frames).missed == 0
    late = next(frames)
    monkeypatch.undo()
    assert late.missed == 499
    assert late.time_s == pytest.approx(50.0)
    assert torch.equal(late.frame, expected[1])
    assert asked == [600, 100]


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:9/film.mp4", "rtsp://user:hunter2@camera/1", "file:///film.mp4",
     Path("https://user:hunter2@camera/film.mp4")],
)  # fmt: skip
def test_an_address_is_no_film(address):
    with pytest.raises(VideoError, match=r"is an address, .* give it as a camera") as refused:
        film_frames(address, 2, SIZE)
    assert "hunter2" not in str(refused.value)


def test_a_file_may_have_a_name_like_an_address(make_clip):
    path = make_clip("http:/clip.mp4", 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parents[1])
        assert len(list(film_frames("http:/clip.mp4", 10, SIZE))) == 6


def test_a_film_that_is_missing_is_named(tmp_path):
    with pytest.raises(VideoError, match=r"none\.mp4 does not exist"):
        film_frames(tmp_path / "none.mp4", 2, SIZE)


def test_a_playlist_is_no_film(tmp_path):
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n")
    with pytest.raises(VideoError, match=r"list\.m3u8 cannot be decoded"):
        film_frames(tmp_path / "list.m3u8", 2, SIZE)


def test_a_stretch_behind_the_end_is_refused(make_clip):
    with pytest.raises(StretchError, match=r"lasts 1\.000 s, but is asked about from 3 s on"):
        film_frames(make_clip(frames=10), 2, SIZE, start_s=3.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fps": 0}, "fps must be above 0, got 0"),
        ({"fps": float("nan")}, "fps must be a number"),
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"start_s": -1}, "start_s must be at least 0, got -1"),
        ({"start_s": 2.0, "end_s": 1.0}, r"end_s must be after start_s=2, got 1"),
        ({"grid_fps": 0}, "grid_fps must be above 0, got 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_before_the_film_is_opened(wrong, message):
    with pytest.raises(ConfigError, match=message):
        film_frames("none.mp4", **{"fps": 2, "image_size": SIZE, **wrong})


def test_frames_may_come_from_any_iterable_and_be_of_any_size():
    pictures = [clip_picture("given", k, width, 48).copy() for k, width in enumerate((64, 24, 100))]
    given = [
        (0, pictures[0]),
        (np.float32(0.5), torch.from_numpy(pictures[1]).permute(2, 0, 1)),
        (2.0, Image.fromarray(pictures[2])),
    ]
    live = list(given_frames((pair for pair in given), SIZE))
    assert [frame.time_s for frame in live] == [0.0, 0.5, 2.0]
    for frame, picture in zip(live, pictures, strict=True):
        assert torch.equal(frame.frame, TRANSFORM(picture))


def test_an_iterable_is_asked_for_a_frame_when_the_reader_asks():
    asked = []

    def endless():
        while True:
            asked.append(len(asked))
            yield float(len(asked)), clip_picture("endless", len(asked))

    frames = given_frames(endless(), SIZE)
    assert asked == []
    next(frames)
    next(frames)
    assert asked == [0, 1]


@pytest.mark.parametrize("as_given", [lambda p: p, lambda p: torch.from_numpy(p).permute(2, 0, 1)])
def test_a_frame_stays_what_it_was_when_its_buffer_is_filled_again(as_given):
    buffer = np.zeros((SIZE, SIZE, 3), np.uint8)

    def filled():
        for k in range(3):
            buffer[:] = k
            yield k, as_given(buffer)

    live = list(given_frames(filled(), SIZE))
    assert [int(frame.frame.max()) for frame in live] == [0, 1, 2]


PICTURE = clip_picture("wrong", 0)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            (1.0, PICTURE),
            r"frame 1 is of 1 s; its time must be after 1 s, that of the frame before",
        ),
        ((0.5, PICTURE), r"frame 1 is of 0\.5 s; its time must be after 1 s"),
        ((float("nan"), PICTURE), r"frame 1 is of nan s"),
        ((float("inf"), PICTURE), r"frame 1 is of inf s"),
        (("soon", PICTURE), r"frame 1 is a tuple; give time \(seconds\) and picture"),
        (PICTURE, r"frame 1 is a ndarray; give time"),
        (None, r"frame 1 is a NoneType; give time"),
        ((2.0, PICTURE.astype(np.float32)), r"frame 1 is ndarray of float32 and shape \(48, 64, 3"),
        ((2.0, PICTURE[..., 0]), r"picture of frame 1 is ndarray of uint8 and shape \(48, 64\)"),
        ((2.0, PICTURE.transpose(2, 0, 1)), r"frame 1 is ndarray of uint8 and shape \(3, 48, 64\)"),
        ((2.0, torch.tensor(PICTURE)), r"frame 1 is Tensor of uint8 and shape \(48, 64, 3\)"),
        ((2.0, PICTURE[:0]), r"frame 1 is ndarray of uint8 and shape \(0, 64, 3\)"),
        ((2.0, None), r"frame 1 is NoneType of object"),
    ],
)
def test_what_is_no_frame_is_named_by_its_number(second, message):
    frames = given_frames([(1.0, PICTURE), second], SIZE)
    next(frames)
    with pytest.raises(DataError, match=message):
        next(frames)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["dog_barking.mp4", "av1.mkv", "h265_10bit.mp4"])
def test_real_films_give_the_frames_that_training_takes(real_data, name):
    assert_equal_to_trained(real_data / "video" / name, 2)
