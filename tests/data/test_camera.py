import io
import struct
import subprocess
import sys
import threading
import time
import traceback
from itertools import pairwise

import av
import psutil
import pytest
import torch

from cameras import (
    MOTION_JPEG,
    TRANSPORT_STREAM,
    CameraServer,
    motion_jpeg,
    number_of,
    served,
    spoken,
    transport_stream,
)
from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.data.camera import Camera
from mmavlm.data.live import film_frames

SIZE = 40


@pytest.fixture(scope="module")
def pieces():
    return {TRANSPORT_STREAM: transport_stream(60, 25), MOTION_JPEG: motion_jpeg(60)}


@pytest.fixture
def camera_of(pieces):
    """A function that starts a camera of some pictures at 127.0.0.1."""
    servers = []

    def start(kind=TRANSPORT_STREAM, fps=25, number=60, **settings):
        server = served(CameraServer(pieces[kind][:number], fps, kind, **settings))
        servers.append(server)
        return server.__enter__()

    yield start
    for server in servers:
        server.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def nothing_is_left():
    """After each test no thread of a camera runs."""
    yield
    assert [t for t in threading.enumerate() if t.name == "camera"] == []


@pytest.mark.parametrize("kind", [TRANSPORT_STREAM, MOTION_JPEG])
def test_pictures_come_in_order_and_at_most_so_many_a_second_until_the_camera_ends(camera_of, kind):
    server = camera_of(kind)
    began_s = time.monotonic()
    with Camera(server.address, 5, SIZE) as camera:
        frames = list(camera)
    assert time.monotonic() - began_s < 4
    assert frames[0].time_s < 0.2
    assert all(f.frame.shape == (3, SIZE, SIZE) and f.frame.dtype == torch.uint8 for f in frames)
    steps = [int((f.time_s + 5e-4) * 5) for f in frames]
    numbers = [number_of(f.frame) for f in frames]
    assert all(a < b for a, b in pairwise(steps))
    assert all(a < b for a, b in pairwise(numbers))
    assert sum(1 + f.missed for f in frames) <= steps[-1] + 1
    assert 8 <= len(frames) <= 13
    assert camera.damaged == 0


def test_times_are_those_of_the_pictures(camera_of):
    frames = list(Camera(camera_of(fps=50).address, 5, SIZE))
    assert len(frames) > 5
    for frame in frames:
        assert frame.time_s == pytest.approx(number_of(frame.frame) / 25)


def test_without_times_of_their_own_pictures_are_of_when_they_came(camera_of):
    frames = list(Camera(camera_of(MOTION_JPEG, fps=40).address, 5, SIZE))
    rate = (number_of(frames[-1].frame) - number_of(frames[1].frame)) / (
        frames[-1].time_s - frames[1].time_s
    )
    assert rate == pytest.approx(40, rel=0.25)


@pytest.mark.parametrize("kind", [TRANSPORT_STREAM, MOTION_JPEG])
def test_a_slow_reader_misses_pictures_and_sees_what_is_now(camera_of, kind):
    server = camera_of(kind)
    missed = 0
    with Camera(server.address, 25, SIZE) as camera:
        for count, frame in enumerate(camera):
            late = server.sent - 1 - number_of(frame.frame)
            assert late <= 8, "a third of a second"
            missed += frame.missed
            if count == 5:
                break
            time.sleep(0.3)
    assert missed >= 15


def test_a_camera_that_falls_silent_is_named_after_its_time(camera_of):
    server = camera_of(number=12, fps=50, falls_silent=True)
    frames = iter(Camera(server.address, 25, SIZE, timeout_s=0.7))
    next(frames)
    message = (
        r"http://127\.0\.0\.1:\d+/live (gave no picture for 0\.7 s|broke off: silent for 0\.7 s); "
        "check that it is on"
    )
    began_s = time.monotonic()
    with pytest.raises(VideoError, match=message):
        list(frames)
    assert 0.4 < time.monotonic() - began_s < 2.5
    assert server.left.wait(2)


def test_a_camera_that_never_says_anything_is_named_after_its_time(camera_of):
    server = camera_of(number=0, falls_silent=True)
    began_s = time.monotonic()
    with (
        pytest.raises(VideoError, match=r"gave no picture for 0\.5 s|silent for 0\.5 s"),
        Camera(server.address, 25, SIZE, timeout_s=0.5),
    ):
        pass
    assert time.monotonic() - began_s < 2.5
    assert server.left.wait(2)


class LeftError(Exception):
    pass


def leave_by_break(camera):
    for _ in camera:
        break


def leave_by_error(camera):
    for _ in camera:
        raise LeftError


def leave_by_interrupt(camera):
    for _ in camera:
        raise KeyboardInterrupt


def leave_by_with(camera):
    with camera:
        next(iter(camera))


def leave_unread(camera):
    with camera:
        pass


def leave_by_closing(camera):
    with camera:
        for _ in camera:
            camera.close()


def leave_the_iterator(camera):
    frames = iter(camera)
    next(frames)
    del frames


@pytest.mark.parametrize(
    "leave",
    [leave_by_break, leave_by_error, leave_by_interrupt, leave_by_with, leave_unread,
     leave_by_closing, leave_the_iterator],
)  # fmt: skip
def test_whichever_way_a_camera_is_left_nothing_goes_on(camera_of, leave):
    server = camera_of(number=60)
    files = psutil.Process().num_fds() if hasattr(psutil.Process, "num_fds") else 0
    try:
        leave(Camera(server.address, 10, SIZE))
    except (LeftError, KeyboardInterrupt):
        left_s = time.monotonic()
    else:
        left_s = time.monotonic()
    assert [t for t in threading.enumerate() if t.name == "camera"] == []
    assert server.left.wait(1)
    assert time.monotonic() - left_s < 1
    while hasattr(psutil.Process, "num_fds") and psutil.Process().num_fds() > files:
        assert time.monotonic() - left_s < 1, "files are left open"
        time.sleep(0.02)


def test_leaving_a_silent_camera_takes_no_longer_and_its_thread_ends_in_time(camera_of):
    server = camera_of(number=12, fps=100, falls_silent=True)
    with Camera(server.address, 25, SIZE, timeout_s=2) as camera:
        next(iter(camera))
        time.sleep(0.3)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 1.5
    assert server.left.wait(3)
    for thread in threading.enumerate():
        if thread.name == "camera":
            thread.join(1)


LEFT_OPEN = """
import sys, time
from mmavlm.data.camera import Camera
frames = iter(Camera(sys.argv[1], 25, 40, timeout_s=100))
next(frames)
print(time.time())
"""


@pytest.mark.slow
def test_a_program_ends_although_it_left_a_silent_camera_open(camera_of):
    server = camera_of(number=12, fps=100, falls_silent=True)
    command = [sys.executable, "-c", LEFT_OPEN, server.address]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert time.time() - float(ended.stdout) < 50


def test_a_camera_can_be_watched_again(camera_of):
    server = camera_of()
    camera = Camera(server.address, 10, SIZE)
    for _ in range(2):
        for frame in camera:
            assert number_of(frame.frame) < 30
            break
    with camera:
        first, second = next(iter(camera)), next(iter(camera))
    assert first.time_s < second.time_s
    assert server.asked == ["/live"] * 3


def numbers_in(stream):
    """The numbers of the pictures of an MPEG-TS, by their times."""
    with av.open(io.BytesIO(b"".join(stream))) as file:
        times = [packet.pts * packet.time_base for packet in file.demux(video=0) if packet.size]
    return {round(25 * (time - times[0])) for time in times}


def test_damaged_pictures_are_left_out_and_counted(camera_of, pieces):
    damaged = [p[:-188] if number == 33 else p for number, p in enumerate(pieces[TRANSPORT_STREAM])]
    (lost,) = numbers_in(pieces[TRANSPORT_STREAM]) - numbers_in(damaged)
    server = camera_of(fps=50)
    server.pieces = damaged
    with Camera(server.address, 25, SIZE) as camera:
        frames = list(camera)
    for frame in frames:
        assert frame.time_s == pytest.approx(number_of(frame.frame) / 25)
    shown = {number_of(frame.frame) for frame in frames}
    key = next(number for number in range(lost, 60) if number % 5 == 0)
    assert key > lost + 1, "some must refer to the one that is lost"
    assert 1 <= camera.damaged <= 6
    assert not shown & set(range(lost, key))
    assert shown & set(range(key, 60))


def test_a_film_on_a_server_shows_what_the_film_shows_upright(make_clip, camera_of):
    path = make_clip(frames=10, gop=1)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 4 + 20 + 16
    struct.pack_into(">9i", content, matrix, 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    path.write_bytes(content)
    server = camera_of()
    server.pieces, server.kind = [bytes(content)], "video/mp4"
    expected = {round(f.time_s, 3): f.frame for f in film_frames(path, 10, SIZE)}
    live = list(Camera(server.address, 10, SIZE))
    assert live
    for frame in live:
        assert torch.equal(frame.frame, expected[round(frame.time_s, 3)])


def test_a_password_is_not_shown(camera_of):
    server = camera_of(number=0)
    address = server.address.replace("//", "//me:hun@ter2@") + "?pwd=hunter2"
    for source in (address, "rtsp://me:hun@ter2@127.0.0.1:1/1", "rtmp://me:hun@ter2@camera/1"):
        with pytest.raises(VideoError, match=r"://\*\*\*@") as refused:
            next(iter(Camera(source, 2, SIZE)))
        shown = traceback.format_exception(refused.value)
        assert not [line for line in shown if "ter2" in line and __file__ not in line]


def test_a_camera_that_does_not_answer_is_named_with_a_remedy():
    message = (
        r"rtsp://127\.0\.0\.1:1/x cannot be opened as a camera: Connection refused; check that it "
        "is on, and its address, user and password"
    )
    with pytest.raises(VideoError, match=message):
        next(iter(Camera("rtsp://127.0.0.1:1/x", 2, SIZE)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("file:///etc/passwd", r"file:///etc/passwd is no camera; give a device, or an address of"),
        ("rtmp://127.0.0.1/x", r"rtmp://127\.0\.0\.1/x is no camera; .* rtsp, rtsps, http, https"),
        ("concat://a|b", "is no camera"),
        (__file__, r"test_camera\.py is a film and no camera; give it as a file"),
    ],
)
def test_what_is_no_camera_is_refused(source, message):
    with pytest.raises(VideoError, match=message):
        Camera(source, 2, SIZE)


def test_a_device_that_is_not_there_is_named_with_a_remedy():
    with pytest.raises(VideoError, match=r"/dev/video99 cannot be opened as a camera: .*; check"):
        next(iter(Camera("/dev/video99", 2, SIZE)))


def test_a_format_that_ffmpeg_lacks_is_named():
    with pytest.raises(VideoError, match=r"0 cannot be opened as a camera: no container format 'n"):
        next(iter(Camera("0", 2, SIZE, format="none")))


@pytest.mark.parametrize("wrong", [{"fps": 0}, {"image_size": 0}, {"timeout_s": 0}])
def test_numbers_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Camera("/dev/video0", **{"fps": 2, "image_size": SIZE, **wrong})


def test_a_page_is_no_camera(camera_of):
    server = camera_of(number=0)
    server.pieces, server.kind = [b"<html>not found</html>" * 99], "text/html"
    with pytest.raises(VideoError, match=r"cannot be opened as a camera: (Invalid data|Input/out)"):
        next(iter(Camera(server.address, 2, SIZE)))


def playlist_of(segment):
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n"
    return f"{head}#EXTINF:2.4,\n{segment}\n#EXT-X-ENDLIST\n".encode()


def test_a_playlist_leads_on_to_other_addresses(camera_of):
    server = camera_of(fps=1000)
    with spoken(playlist_of(server.address + ".ts"), "live.m3u8") as address:
        numbers = [number_of(f.frame) for f in Camera(address, 5, SIZE)]
    assert server.asked == ["/live.ts"]
    assert numbers
    assert max(numbers) < 60


def test_a_playlist_from_the_network_reads_no_local_file(pieces, tmp_path):
    film = tmp_path / "secret.ts"
    film.write_bytes(b"".join(pieces[TRANSPORT_STREAM]))
    playlist = playlist_of(f"file://{film}")
    with spoken(playlist, "live.m3u8") as address, av.open(address) as file:
        assert sum(1 for _ in file.decode(video=0)) == 60, "FFmpeg itself does read it"
    with spoken(playlist, "live.m3u8") as address, pytest.raises(VideoError, match="Invalid data"):
        next(iter(Camera(address, 5, SIZE)))


def lavfi(graph, fps, size=SIZE):
    try:
        with Camera(graph, fps, size, format="lavfi") as camera:
            yield from camera
    except VideoError as error:
        if "no container format" not in str(error):
            raise
        pytest.skip("this FFmpeg has no lavfi")


def test_what_ffmpeg_makes_itself_is_a_camera_too():
    frames = lavfi("testsrc=rate=50:size=64x48,realtime", 10)
    times_s = [next(frames).time_s for _ in range(4)]
    assert times_s == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_of_many_pictures_one_is_held():
    process = psutil.Process()
    before, shown = None, 0
    for frame in lavfi("testsrc=rate=1000:size=640x480", 1000):
        time.sleep(0.25)
        shown += 1 + frame.missed
        before = before or process.memory_info().rss
        if shown > 300:
            break
    assert process.memory_info().rss - before < 50e6, "300 pictures take 276 MB"


def test_a_camera_may_be_listened_to_by_tcp(pieces):
    with spoken(b"".join(pieces[TRANSPORT_STREAM])) as address:
        frames = list(Camera(address, 5, SIZE))
    assert 1 <= len(frames) <= 12
    assert number_of(frames[-1].frame) == pytest.approx(25 * frames[-1].time_s)


@pytest.mark.slow
def test_a_hundred_cameras_leave_neither_threads_nor_files(camera_of):
    server = camera_of(MOTION_JPEG, fps=200)
    process = psutil.Process()
    for number in range(110):
        if number == 10:
            files = process.num_fds()
        for _ in Camera(server.address, 10, SIZE):
            break
        assert server.left.wait(1)
    assert process.num_fds() <= files + 1
    assert [t for t in threading.enumerate() if t.name == "camera"] == []
