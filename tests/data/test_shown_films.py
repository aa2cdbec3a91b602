"""Films are shown as players show them."""

import gc
import json
import logging
import wave
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition

from clips import clip_picture
from mmavlm.core.errors import VideoError
from mmavlm.data.containers import opened
from mmavlm.data.cursor import Cursor
from mmavlm.data.orientation import orientation
from mmavlm.data.probe import probe
from mmavlm.data.video import read_frames, shown_pictures
from mp4_boxes import set_edits, set_matrix


def shown(path):
    """Times and pictures of all frames, each found alone and all one after the other."""
    info = probe(path)
    times_s = info.times_s.tolist()
    found = list(shown_pictures(info, times_s))
    assert [at_s for at_s, _ in found] == pytest.approx(times_s)
    for number in range(0, len(times_s), 5):
        ((at_s, alone),) = shown_pictures(info, [times_s[number]])
        assert at_s == pytest.approx(times_s[number])
        np.testing.assert_array_equal(alone, found[number][1])
    return times_s, [picture for _, picture in found]


def assert_shows(path, expected, fps=10):
    """The pictures, at times that go on at `fps`."""
    times_s, pictures = shown(path)
    assert len(pictures) == len(expected)
    np.testing.assert_array_equal(pictures, expected)
    np.testing.assert_allclose(times_s, np.arange(len(expected)) / fps, atol=2e-3)


def copied(source, path, change=lambda packet, number: packet, **options):
    """The packets of a film in another file, in their order, each as `change` leaves it."""
    with av.open(str(source)) as film, av.open(str(path), "w", options=options) as target:
        copy = target.add_stream_from_template(film.streams.video[0])
        for number, packet in enumerate(film.demux(video=0)):
            if packet.size:
                packet = change(packet, number)
                packet.stream = copy
                target.mux(packet)
    return path


TURNS = {
    "upright": ((1, 0, 0, 1), lambda p: p),
    "a quarter clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "half": ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
    "a quarter counterclockwise": ((0, -1, 1, 0), lambda p: np.rot90(p)),
    "left to right": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda p: p[::-1]),
    "along its diagonal": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    "along its other diagonal": ((0, -1, -1, 0), lambda p: p[::-1, ::-1].transpose(1, 0, 2)),
    "zeros": ((0, 0, 0, 0), lambda p: p),
    "scaled": ((0, 2, -2, 0), lambda p: np.rot90(p, -1)),
}


@pytest.mark.parametrize(("matrix", "turned"), TURNS.values(), ids=TURNS)
def test_a_display_matrix_is_followed_whole(make_clip, matrix, turned):
    path = make_clip("clip.mov", 4)
    _, upright = shown(path)
    assert_shows(set_matrix(path, *matrix), [turned(picture) for picture in upright])


@pytest.mark.parametrize(
    ("degrees", "turned"),
    [(0, lambda p: p), (90, np.rot90), (-90, lambda p: np.rot90(p, -1)), (-(2**31), lambda p: p)],
)
def test_beside_side_data_that_pyav_does_not_know_the_angle_counts(monkeypatch, degrees, turned):
    def unknown(frame):
        raise ValueError("31 is not a valid Type")

    monkeypatch.setattr("mmavlm.data.orientation.SIDE_DATA", unknown)
    frame = SimpleNamespace(rotation=degrees)
    picture = clip_picture("any", 0)
    np.testing.assert_array_equal(orientation(frame, "a").shown(picture), turned(picture))


def test_no_frame_is_kept_by_looking_at_how_it_is_turned(make_clip):
    path = set_matrix(make_clip("clip.mov", 40), 0, 1, -1, 0)
    gc.collect()
    gc.disable()
    try:
        for _ in shown_pictures(probe(path), [k / 10 for k in range(40)]):
            pass
        # by its type: what stands for another object may not like to be asked for its class
        frames = [thing for thing in gc.get_objects() if issubclass(type(thing), av.VideoFrame)]
        assert not [frame for frame in frames if frame.format.name == "yuv420p"]
    finally:
        gc.enable()


def test_a_slanted_film_is_turned_to_the_nearest_quarter_which_is_said_once(make_clip, caplog):
    path = make_clip("clip.mov", 4)
    _, upright = shown(path)
    sine, cosine = np.sin(np.radians(80)), np.cos(np.radians(80))
    set_matrix(path, cosine, sine, -sine, cosine)
    assert_shows(path, [np.rot90(picture, -1) for picture in upright])
    (said,) = (record.message for record in caplog.records)
    assert said.endswith("clip.mov is to be shown -10° off a quarter turn; it is turned to the "
                         "nearest one")  # fmt: skip


EDITS = {
    "its start is cut": (4.3, 1.7),
    "its end is cut": (2.5, 0),
    "both ends are cut": (1.0, 2.4),
    "its first groups are cut": (2.0, 4.0),
    "a group begins it": (3.6, 2.4),
    "one frame is left": (0.1, 3.3),
}


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize(("duration_s", "start_s"), EDITS.values(), ids=EDITS)
def test_of_a_film_that_is_cut_by_an_edit_list_what_is_left_counts(
    make_clip, duration_s, start_s, codec
):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = make_clip("clip.mov", 60, codec=codec)
    _, pictures = shown(path)
    set_edits(path, (duration_s, start_s))
    assert_shows(path, pictures[round(start_s * 10) : round((start_s + duration_s) * 10)])


@pytest.mark.parametrize(
    "edits",
    [
        [(3.0, None), (4.0, 0.5)],
        [(1.5, 0.7), (1.2, 4.5)],
        [(1.0, 4.0), (1.0, 0.5)],
        [(0.8, 1.0), (0.8, 1.0)],
        [(1.0, 0.2), (1.0, 2.2), (1.0, 4.2)],
    ],
)
def test_parts_of_a_film_are_shown_in_the_order_of_its_edit_list(make_clip, edits):
    path = make_clip("clip.mov", 60)
    _, pictures = shown(path)
    parts = [
        pictures[round(start_s * 10) : round((start_s + duration_s) * 10)]
        for duration_s, start_s in edits
        if start_s is not None
    ]
    times_s, found = shown(set_edits(path, *edits))
    expected = [picture for part in parts for picture in part]
    np.testing.assert_array_equal(found, expected)
    # FFmpeg may leave a gap of two frames between parts
    np.testing.assert_allclose(times_s, np.arange(len(expected)) / 10, atol=0.1 + 0.2 * len(parts))
    assert (np.diff(times_s) > 0).all()


@pytest.mark.parametrize("edit", [(4.3, 1.7), (2.0, 4.0)])
def test_a_film_that_is_cut_once_keeps_the_shortcut(make_clip, edit):
    info = probe(set_edits(make_clip("clip.mov", 60), edit))
    pts = info.frame_pts[[1, 5, -1]].tolist()
    with opened(info.path) as (container, stream):
        cursor = Cursor(container, stream, info, pts)
        assert [cursor.move_to(at)[0] for at in pts] == pts
    assert cursor.shortcut is not None


def test_an_edit_before_the_first_frame_hides_none(make_clip):
    path = make_clip("clip.mov", 30)
    _, pictures = shown(path)
    assert_shows(set_edits(path, (2.0, -0.1)), pictures[:19])


def test_a_film_of_which_an_edit_list_shows_nothing_is_named(make_clip):
    path = set_edits(make_clip("clip.mov", 30), (0.0, 9.0))
    with pytest.raises(VideoError, match=r"clip\.mov"):
        probe(path)


def test_a_cut_film_that_is_cut_off_is_named(make_clip):
    path = make_clip("clip.mov", 60)
    fast = copied(path, path.with_suffix(".mp4"))
    set_edits(fast, (4.3, 1.7))
    first = copied(fast, path.with_name("first.mp4"), movflags="faststart")
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"first\.mp4 \(h264\) is cut off: its header promises"):
        probe(first)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".ts", "libx264"), (".mpg", "mpeg2video"), (".mkv", "libx264")]
)
def test_films_joined_end_to_end_are_shown_one_after_the_other(make_clip, suffix, codec):
    path = make_clip(f"clip{suffix}", 40, codec=codec, fps=25, ticks=1)
    _, pictures = shown(path)
    path.write_bytes(2 * path.read_bytes())
    assert_shows(path, 2 * pictures, fps=25)


def test_a_clock_that_is_set_ahead_in_a_stream_is_no_pause(make_clip):
    path = make_clip("clip.ts", 20, ticks=1)
    _, pictures = shown(path)
    later = copied(path, path.with_name("later.ts"), output_ts_offset="50")
    path.write_bytes(path.read_bytes() + later.read_bytes())
    assert_shows(path, 2 * pictures)


def test_a_clock_that_runs_over_goes_on(make_clip):
    path = make_clip("clip.ts", 40, ticks=1)
    _, pictures = shown(path)
    late = copied(path, path.with_name("late.ts"), output_ts_offset=str(2**33 / 90_000 - 2))
    assert_shows(late, pictures)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_frames_of_packets_numbered_as_they_come_are_shown_in_order(make_clip, codec):
    path = make_clip("clip.mkv", 30, codec=codec, fps=25)
    _, pictures = shown(path)

    def numbered(packet, number):
        packet.pts = packet.dts = 40 * number
        return packet

    wrong = copied(path, path.with_name("numbered.mp4"), numbered)
    times_s, found = shown(wrong)
    np.testing.assert_array_equal(found, pictures)
    np.testing.assert_allclose(times_s, np.arange(30) / 25, atol=0.05)


def test_pictures_of_vp8_that_only_others_refer_to_are_not_shown(make_clip):
    if "libvpx" not in av.codecs_available:
        pytest.skip("this FFmpeg has no libvpx")
    path = make_clip("clip.webm", 20, codec="libvpx")

    def hidden(packet, number):
        if number != 7:
            return packet
        content = bytearray(bytes(packet))
        content[0] &= 0xEF  # RFC 6386, 9.1: show_frame
        other = av.Packet(bytes(content))
        other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
        return other

    _, pictures = shown(path)
    times_s, found = shown(copied(path, path.with_name("hidden.webm"), hidden))
    np.testing.assert_array_equal(found, pictures[:7] + pictures[8:])
    assert times_s[7] == pytest.approx(0.8, abs=2e-3)


@pytest.mark.parametrize(("name", "codec"), [("clip.h264", "libx264"), ("clip.hevc", "libx265")])
def test_a_stream_without_times_is_shown_at_its_rate_which_is_said_once(
    make_clip, caplog, name, codec
):
    path = make_clip(name, 30, codec=codec, fps=25, ticks=1)
    with av.open(str(path)) as file:
        expected = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    with caplog.at_level(logging.WARNING):
        assert_shows(path, expected, fps=25)
    messages = [r.message for r in caplog.records if "has no times" in r.message]
    assert messages == [f"{path} has no times; its frames are taken at 25 a second"]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("c.nut", "libx264"), ("c.3gp", "libx264"), ("c.mxf", "mpeg2video"),
     ("c.y4m", "wrapped_avframe"), ("c.ogv", "libtheora"), ("c.m2v", "mpeg2video")],
)  # fmt: skip
def test_other_containers_are_read(make_clip, name, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = make_clip(name, 20, codec=codec, fps=25, ticks=1)
    with av.open(str(path)) as file:
        expected = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert_shows(path, expected, fps=25)


def dispose(stream, disposition):
    """Mark a stream; skips the test where PyAV cannot, as before version 17."""
    try:
        stream.disposition = disposition
    except (AttributeError, TypeError):
        pytest.skip("this PyAV cannot write the disposition of a stream")


def two_films(path, sizes, default):
    """A film whose streams have these sizes; a picture's level is the number of its stream."""
    with av.open(str(path), "w") as file:
        streams = [file.add_stream("libx264", rate=10) for _ in sizes]
        for number, (stream, (width, height)) in enumerate(zip(streams, sizes, strict=True)):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            dispose(stream, Disposition.default if number == default else Disposition(0))
        for number, (stream, (width, height)) in enumerate(zip(streams, sizes, strict=True)):
            for _ in range(5):
                level = np.full((height, width, 3), 100 * (number + 1), np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(level)))
            file.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("sizes", "default", "chosen"),
    [
        ([(64, 48), (128, 96)], None, 1),
        ([(128, 96), (64, 48)], None, 0),
        ([(128, 96), (64, 48)], 1, 1),
        ([(64, 48), (64, 48)], None, 0),
    ],
)
def test_of_several_streams_the_default_or_else_the_largest_is_shown(
    tmp_path, sizes, default, chosen
):
    _, pictures = shown(two_films(tmp_path / "two.mkv", sizes, default))
    width, height = sizes[chosen]
    assert pictures[0].shape == (height, width, 3)
    assert abs(pictures[0].mean() - 100 * (chosen + 1)) < 5


def test_a_sound_file_with_a_cover_is_named_as_one(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as file:
        sound = file.add_stream("aac", rate=16000, layout="mono")
        cover = file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        dispose(cover, Disposition.attached_pic)
        quiet = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        quiet.sample_rate = 16000
        picture = av.VideoFrame.from_ndarray(clip_picture("cover", 0))
        for packet in [*cover.encode(picture), *cover.encode(), *sound.encode(quiet),
                       *sound.encode()]:  # fmt: skip
            file.mux(packet)
    with pytest.raises(VideoError, match=r"song\.mp4 holds a cover picture, but no film"):
        probe(path)


def test_a_container_that_is_not_read_is_named_with_the_remedy(tmp_path):
    path = tmp_path / "sound.mp4"
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    message = r"sound\.mp4 cannot be decoded: it is a sound file, a playlist, or .*; convert it"
    with pytest.raises(VideoError, match=message):
        probe(path)


@pytest.mark.real_data
def test_all_trials_are_shown_as_players_show_them(real_data):
    folder = real_data / "video_trials"
    for name, due in json.loads((folder / "truth.json").read_text()).items():
        if due is None:
            with pytest.raises(VideoError):
                read_frames(folder / name, [0.0], torch.from_numpy)
            continue
        times_s, pictures = shown(folder / name)
        assert len(times_s) == due["frames"], name
        assert {p.shape for p in pictures} == {(due["height"], due["width"], 3)}, name
        np.testing.assert_allclose(times_s, due["times_s"], atol=0.06, rtol=0, err_msg=name)
        assert (np.diff(times_s) > 0).all(), name
        middle, centre = due["height"] // 2, due["width"] // 2
        for number, quarters in due["quarters"].items():
            picture = pictures[int(number)]
            found = [
                part.mean((0, 1))
                for rows in (picture[:middle], picture[middle:])
                for part in (rows[:, :centre], rows[:, centre:])
            ]
            np.testing.assert_allclose(found, quarters, atol=8, rtol=0, err_msg=f"{name} {number}")
