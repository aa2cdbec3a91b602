import ctypes
import gc
import multiprocessing
import struct
from itertools import pairwise

import av
import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from mmavlm.core.errors import VideoError
from mmavlm.data import probe as probing
from mmavlm.data.probe import probe
from mmavlm.data.video import decode_threads, read_frames

REAL_FILMS = (
    "birthday_no_audio.mp4",
    "cooking_70s.mp4",
    "dog_barking.mp4",
    "h265_10bit.mp4",
    "av1.mkv",
    "no_frame_count.mp4",
)


def whole(picture):
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)


def decode_in_order(path, keep=lambda index: True):
    """Times in seconds from the first frame, and pictures: every frame, without any seeking."""
    times_s, pictures = [], {}
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.thread_type = "NONE"
        for index, frame in enumerate(file.decode(stream)):
            times_s.append(frame.pts * float(stream.time_base))
            if keep(index):
                pictures[index] = whole(frame.to_ndarray(format="rgb24"))
    return [t - times_s[0] for t in times_s], pictures


def assert_exact(path, wanted=None):
    """Every frame (or the `wanted` ones) is found at its own time and until the next one's."""
    times_s, pictures = decode_in_order(path, lambda index: wanted is None or index in wanted)
    numbers = sorted(pictures)
    ends = [*times_s[1:], times_s[-1] + 1.0]
    middles = [(times_s[i] + ends[i]) / 2 for i in numbers]
    expected = torch.stack([pictures[i] for i in numbers])
    for at_s in ([times_s[i] for i in numbers], middles):
        frames, found_s = read_frames(path, at_s, whole)
        assert torch.equal(frames, expected)
        torch.testing.assert_close(found_s, torch.tensor([times_s[i] for i in numbers]))


@pytest.mark.parametrize("gop", [12, 250])
def test_frames_equal_those_of_decoding_in_order(make_clip, gop):
    path = make_clip(frames=60, gop=gop)
    with av.open(str(path)) as file:
        dts_order = [p.pts for p in file.demux(video=0) if p.pts is not None]
    assert dts_order != sorted(dts_order), "the clip must have B-frames"
    assert_exact(path)


@pytest.mark.parametrize("gop", [12, 250])
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), threads=st.integers(1, 3))
def test_any_choice_of_times_equals_decoding_in_order(make_clip, tmp_path, gop, data, threads):
    path = tmp_path / "clip.mp4"
    if not path.exists():
        make_clip(frames=60, gop=gop)
    times_s, pictures = decode_in_order(path)
    chosen = sorted(data.draw(st.lists(st.floats(-1, 8), min_size=1, max_size=6)))
    frames, found_s = read_frames(path, chosen, whole, threads=threads)
    for at_s, frame, got_s in zip(chosen, frames, found_s, strict=True):
        # a tick is a millisecond or less: times nearer than that to a frame count as its own
        shown = max([i for i, t in enumerate(times_s) if t <= at_s + 5e-4] or [0])
        before = max([i for i, t in enumerate(times_s) if t <= at_s - 5e-4] or [0])
        match = next((i for i in {shown, before} if torch.equal(frame, pictures[i])), None)
        assert match is not None
        assert float(got_s) == pytest.approx(times_s[match])


def test_open_groups_of_pictures_are_entered_at_the_right_frame(make_clip):
    path = make_clip(frames=60, gop=12, **{"x264-params": "open-gop=1"})
    assert_exact(path)
    assert_exact(path, wanted={0, 29, 47, 59})


@pytest.mark.parametrize("name", ["clip.mkv", "clip.avi", "clip.ts", "clip.mov"])
def test_containers_give_the_same_frames_after_seeking(make_clip, name):
    path = make_clip(name, 60, ticks=1)
    assert_exact(path)
    assert_exact(path, wanted={5, 27, 58})


def test_an_avi_that_counts_other_times_after_seeking_gives_the_right_frames(make_clip):
    path = make_clip("clip.avi", 20)
    assert_exact(path, wanted={5, 15, 16, 17})


@pytest.mark.parametrize("how", ["interlaced=1", "intra-refresh=1", "bframes=0", "b-pyramid=none"])
def test_other_ways_to_refer_to_pictures_give_the_same_frames(make_clip, how):
    path = make_clip(frames=60, gop=12, **{"x264-params": how})
    assert_exact(path)
    assert_exact(path, wanted={0, 29, 46, 59})


def test_a_film_of_a_phone_stands_upright(make_clip):
    path = make_clip(frames=4)
    upright, _ = read_frames(path, [0.0, 0.3], whole)
    content = bytearray(path.read_bytes())
    # after its type, the track header holds version, times, ids, duration and layer, then 3x3
    matrix = content.index(b"tkhd") + 4 + 4 + 20 + 16
    identity = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    assert struct.unpack_from(">9i", content, matrix) == identity
    quarter_clockwise = (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    struct.pack_into(">9i", content, matrix, *quarter_clockwise)
    path.write_bytes(content)
    turned, _ = read_frames(path, [0.0, 0.3], whole)
    assert torch.equal(turned, upright.rot90(-1, (2, 3)))


def test_frames_of_an_avi_that_numbers_packets_are_found_in_display_order(make_clip):
    path = make_clip("clip.avi", 40, ticks=1, codec="libx264")
    with av.open(str(path)) as file:
        numbers = [frame.pts for frame in file.decode(video=0)]
    assert numbers != sorted(numbers), "the container must misname the frames"
    info = probe(path)
    _, pictures = decode_in_order(path)
    frames, found_s = read_frames(path, info.times_s[[0, 7, 8, 39]].tolist(), whole)
    assert torch.equal(frames, torch.stack([pictures[i] for i in (0, 7, 8, 39)]))
    torch.testing.assert_close(found_s, torch.tensor([0.0, 0.7, 0.8, 3.9]))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("clip.mp4", "libx265"), ("clip.mkv", "libsvtav1"), ("c.webm", "libvpx-vp9")],
)
def test_other_codecs_give_the_frames_of_decoding_in_order(make_clip, name, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = make_clip(name, 40, codec=codec)
    assert_exact(path)
    assert_exact(path, wanted={3, 26, 39})


def test_sound_may_go_on_behind_the_picture(make_clip, tmp_path):
    silent, path = make_clip("silent.mp4", 20), tmp_path / "long_sound.mp4"
    with av.open(str(silent)) as film, av.open(str(path), "w") as file:
        picture = file.add_stream_from_template(film.streams.video[0])
        sound = file.add_stream("aac", rate=16000, layout="mono")
        for packet in film.demux(video=0):
            if packet.dts is not None or packet.pts is not None:
                packet.stream = picture
                file.mux(packet)
        quiet = np.zeros((1, 16000 * 6), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(quiet, format="fltp", layout="mono")
        frame.sample_rate = 16000
        file.mux(sound.encode(frame))
        file.mux(sound.encode())
    with av.open(str(path)) as file:
        assert file.duration > 5 * av.time_base
    assert probe(path).duration_s == pytest.approx(2.0, abs=0.01)


def test_a_file_of_which_the_header_alone_came_is_named(make_clip):
    path = make_clip(frames=60)
    path.write_bytes(path.read_bytes()[:3500])
    with pytest.raises(VideoError, match=r"its header promises 60 frames, [0-9] are there"):
        probe(path)


def test_variable_frame_rate_goes_by_presentation_time(make_clip):
    gaps = np.random.default_rng(0).integers(20, 400, 40)
    assert_exact(make_clip(frames=40, pts=[0, *map(int, gaps.cumsum())]))


def test_seconds_count_from_the_first_frame(make_clip):
    path = make_clip("late.mkv", 20, pts=[7300 + 100 * i for i in range(20)])
    info = probe(path)
    assert info.start_pts > 0
    assert info.duration_s == pytest.approx(2.0, abs=0.01)
    assert_exact(path)
    _, found_s = read_frames(path, [0.0, 0.55], whole)
    torch.testing.assert_close(found_s, torch.tensor([0.0, 0.5]))


def test_times_outside_give_the_first_and_the_last_frame(make_clip):
    path = make_clip(frames=20)
    _, pictures = decode_in_order(path)
    frames, found_s = read_frames(path, [-3.0, 50.0, 60.0], whole)
    assert torch.equal(frames, torch.stack([pictures[0], pictures[19], pictures[19]]))
    torch.testing.assert_close(found_s, torch.tensor([0.0, 1.9, 1.9]))


def test_several_threads_give_the_same_frames(make_clip):
    path = make_clip(frames=40)
    times_s = [0.0, 1.3, 3.9]
    one, many = (read_frames(path, times_s, whole, threads=n)[0] for n in (1, 0))
    assert torch.equal(one, many)


class Threads(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return decode_threads()


def test_a_worker_decodes_by_one_thread_and_the_main_process_by_as_many_as_pytorch_has():
    before = torch.get_num_threads()
    try:
        for number in (3, 20):
            torch.set_num_threads(number)
            assert list(DataLoader(Threads(), batch_size=None)) == [min(number, 16)]
            assert list(DataLoader(Threads(), batch_size=None, num_workers=1)) == [1]
    finally:
        torch.set_num_threads(before)


def test_a_frame_shown_at_several_times_is_transformed_once(make_clip):
    path, seen = make_clip(frames=10), []
    frames, _ = read_frames(path, [0.2, 0.21, 0.29, 0.3], lambda p: seen.append(1) or whole(p))
    assert len(seen) == 2
    assert torch.equal(frames[0], frames[2])


class MallocInfo(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = tuple((name, ctypes.c_size_t) for name in names.split())


def malloc_info():
    """glibc's `mallinfo2`, None elsewhere; what a process takes depends on fragments, too."""
    found = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if found is not None:
        found.restype = MallocInfo
    return found


def left_after(path, opens):
    """Bytes in use and open files of this process after it has opened a film so many times."""
    for _ in range(opens):
        read_frames(path, [0.1, 0.8], whole)
    gc.collect()
    return malloc_info()().uordblks, psutil.Process().num_fds()


@pytest.mark.skipif(malloc_info() is None, reason="the C library does not tell its bytes in use")
@pytest.mark.parametrize("times", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_opening_films_leaves_neither_memory_nor_files_behind(make_clip, times):
    path = make_clip(frames=12)
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        memory, files = alone.apply(left_after, (path, 200))
        memory_then, files_then = alone.apply(left_after, (path, times))
    assert files_then == files
    assert memory_then - memory < 50 * times  # an object left behind takes more


def test_probe_reads_what_a_file_holds(make_clip):
    info = probe(make_clip(frames=30, gop=10))
    assert (info.codec, info.width, info.height) == ("h264", 64, 48)
    assert len(info.frame_pts) == 30
    assert len(info.keyframe_pts) == 3
    assert info.duration_s == pytest.approx(3.0)
    assert all(a < b for a, b in pairwise(info.frame_pts))


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL_FILMS)
def test_real_films_equal_decoding_in_order(real_data, name):
    path = real_data / "video" / name
    count = len(probe(path).frame_pts)
    assert_exact(path, wanted={0, 1, count // 3, count // 2, count - 2, count - 1})


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "count"), [("no_frame_count.mp4", 240), ("av1.mkv", 125), ("h265_10bit.mp4", 30)]
)
def test_frames_are_counted_where_the_header_does_not(real_data, name, count):
    assert len(probe(real_data / "video" / name).frame_pts) == count


def test_missing_file_is_named(tmp_path):
    with pytest.raises(VideoError, match=r"none\.mp4 does not exist"):
        probe(tmp_path / "none.mp4")


def test_empty_file_is_named(tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match=r"empty\.mp4 is empty \(0 bytes\)"):
        probe(tmp_path / "empty.mp4")


def test_text_file_with_a_film_name_is_named(tmp_path):
    (tmp_path / "text.mp4").write_text("this is no film\n" * 100)
    with pytest.raises(VideoError, match=r"text\.mp4 cannot be decoded: .*Invalid data"):
        probe(tmp_path / "text.mp4")


def test_file_with_sound_alone_is_named(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 16000), dtype=np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with pytest.raises(VideoError, match=r"sound\.mp4 has no video stream"):
        probe(path)


def cut(path, share):
    """The first `share` of the bytes of a file, in place."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def test_file_cut_off_behind_its_header_is_named(make_clip):
    path = cut(make_clip(frames=60), 0.5)
    message = r"clip\.mp4 \(h264\) is cut off: its header promises 60 frames, \d+ are there; copy"
    with pytest.raises(VideoError, match=message):
        probe(path)


def test_file_cut_off_before_its_index_is_named(make_clip):
    path = cut(make_clip("clip.mov", 60), 0.5)
    with pytest.raises(VideoError, match=r"clip\.mov cannot be decoded"):
        probe(path)


def test_matroska_file_that_is_cut_off_is_named(make_clip):
    path = cut(make_clip("clip.mkv", 60), 0.5)
    with pytest.raises(VideoError, match=r"clip\.mkv \(h264\) is cut off: .* copy or download"):
        probe(path)


def test_file_that_stops_decoding_names_where(make_clip):
    path = make_clip(frames=60, gop=250)
    info = probe(path)
    with av.open(str(path)) as file:
        last = [p for p in file.demux(video=0) if p.pts is not None][10].pos
    content = bytearray(path.read_bytes())
    content[last:] = bytes(len(content) - last)
    path.write_bytes(bytes(content))
    with pytest.raises(VideoError, match=r"clip\.mp4 \(h264\) breaks off after 0\.\d+ s of 6"):
        read_frames(path, [info.duration_s - 0.1], whole, info=info)


def test_avi_file_that_is_cut_off_is_named(make_clip):
    path = cut(make_clip("clip.avi", 60, ticks=1), 0.5)
    message = r"clip\.avi \(mpeg4\) is cut off: its header promises 6\.000 s, \d\.\d+ s are there"
    with pytest.raises(VideoError, match=message):
        probe(path)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_a_header_of_absurd_size_is_refused(make_clip, name, monkeypatch):
    path = make_clip(name, 4)
    monkeypatch.setattr("mmavlm.data.containers.MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(VideoError, match=r"frames of 64×48, more than 3071 pixels|cannot be dec"):
        probe(path)


@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile clip.mp4\n", "#EXTM3U\n#EXTINF:1,\nclip.mp4\n"]
)
def test_a_list_of_other_files_is_no_film(make_clip, text):
    path = make_clip(frames=4).with_name("list.mp4")
    path.write_text(text)
    with pytest.raises(VideoError, match=r"list\.mp4 cannot be decoded"):
        probe(path)


def test_a_codec_that_is_not_known_is_named(make_clip):
    path = make_clip(frames=4)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    with pytest.raises(VideoError, match=r"clip\.mp4 is of a codec that FFmpeg does not know"):
        probe(path)


def test_probing_does_not_hold_the_file_in_memory(make_clip, monkeypatch):
    path, sizes = make_clip(frames=30), []
    real = probing._by_packets
    monkeypatch.setattr(probing, "_by_packets", lambda h, p: sizes.append(p) or real(h, p))
    probe(path)
    assert all(isinstance(value, int) for packet in sizes[0] for value in packet)


def test_damage_in_one_group_gives_the_frames_of_decoding_in_order(make_clip):
    path = make_clip(frames=60, gop=20)
    with av.open(str(path)) as file:
        packets = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    position, size = packets[25]
    for at in range(position + size // 2, position + size, 3):
        content[at] ^= 0x55
    path.write_bytes(content)
    times_s, pictures = decode_in_order(path)
    chosen = [t for t in times_s if t > 2.4][::3]
    try:
        frames, _ = read_frames(path, chosen, whole)
    except VideoError:
        return
    expected = [pictures[times_s.index(t)] for t in chosen]
    assert torch.equal(frames, torch.stack(expected))


def assert_exact_or_refused(path):
    """Each frame, asked for alone, is that of decoding all in order."""
    times_s, pictures = decode_in_order(path)
    for number, at_s in enumerate(times_s):
        try:
            frames, _ = read_frames(path, [at_s], whole)
        except VideoError:
            continue
        assert torch.equal(frames[0], pictures[number]), f"frame {number}"


@pytest.mark.parametrize("lost", range(2, 16, 3))
def test_a_film_that_lacks_a_packet_gives_the_frames_of_decoding_in_order(make_clip, lost):
    path = make_clip(frames=30, gop=30)
    holed = path.with_suffix(".flv")
    with av.open(str(path)) as file, av.open(str(holed), "w") as target:
        copy = target.add_stream_from_template(file.streams.video[0])
        for number, packet in enumerate(file.demux(video=0)):
            if packet.dts is not None and number != lost:
                packet.stream = copy
                target.mux(packet)
    assert_exact_or_refused(holed)


@pytest.mark.parametrize("times_s", [[], [1.0, 0.5]])
def test_times_must_ascend(make_clip, times_s):
    with pytest.raises(ValueError, match=r"times_s must be ascending and not empty, got \["):
        read_frames(make_clip(frames=5), times_s, whole)
