import io
import itertools
import tarfile

import pytest
from PIL import Image

from mmavlm.data.pictures import count_frames
from mmavlm.data.shards.reading import DamagedShardError, samples, tar_members, unpack
from shard_sets import write_tar

MEMBERS = {"a.mp4": b"film a", "a.json": b"{}", "b.mp4": b"film b" * 1000, "b.txt": b"said"}


def unpacked(path, folder, most=10**9):
    with path.open("rb") as file:
        return unpack(tar_members(file), folder, most)


def listed(path):
    with path.open("rb") as file:
        return samples(tar_members(file))


def special(name, kind, to=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def test_films_are_written_and_texts_are_not(tmp_path):
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    written = unpacked(path, tmp_path / "to")
    there = {p.name: p.read_bytes() for p in (tmp_path / "to").iterdir()}
    assert there == {"a.mp4": MEMBERS["a.mp4"], "b.mp4": MEMBERS["b.mp4"]}
    assert written == len(there["a.mp4"]) + len(there["b.mp4"])


def test_samples_have_their_texts(tmp_path):
    one, two = listed(write_tar(tmp_path / "x.tar", MEMBERS))
    assert (one.key, one.texts, one.shown.path) == ("a", {"json": b"{}"}, "a.mp4")
    assert (two.key, two.texts) == ("b", {"txt": b"said"})


def test_frames_become_a_folder_that_readers_of_frames_read(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    frames = {f"a.{number:04d}.jpg": buffer.getvalue() for number in (7, 5, 6)}
    unpacked(write_tar(tmp_path / "x.tar", frames), tmp_path / "to")
    assert count_frames(tmp_path / "to/a.frames") == 3


def test_a_member_has_the_same_time_each_time_it_is_unpacked(tmp_path):
    info = tarfile.TarInfo("a.mp4")
    info.size, info.mtime = 1, 1_600_000_000
    path = write_tar(tmp_path / "x.tar", [(info, b"a")])
    for name in ("one", "two"):
        unpacked(path, tmp_path / name)
        assert (tmp_path / name / "a.mp4").stat().st_mtime == 1_600_000_000


@pytest.mark.parametrize(
    "member",
    [
        special("a.mp4", tarfile.SYMTYPE, "/etc/passwd"),
        special("a.mp4", tarfile.LNKTYPE, "../x"),
        special("a.mp4", tarfile.CHRTYPE),
        special("a.mp4", tarfile.FIFOTYPE),
        "../a.mp4",
        "/tmp/a.mp4",
    ],
)
def test_links_devices_and_names_that_lead_out_are_left_and_named(tmp_path, member):
    path = write_tar(tmp_path / "x.tar", [(member, b""), ("b.mp4", b"film")])
    unpacked(path, tmp_path / "to")
    assert [p.name for p in (tmp_path / "to").rglob("*")] == ["b.mp4"]
    problems = [problem for sample in listed(path) for problem in sample.problems]
    assert len(problems) == 1
    assert "is no plain file" in problems[0] or "is none that a member may have" in problems[0]


def test_what_is_pickled_is_neither_unpacked_nor_opened(tmp_path):
    bomb = b"cos\nsystem\n(S'touch harmed'\ntR."
    path = write_tar(tmp_path / "x.tar", {"a.pyd": bomb, "a.pth": bomb, "a.mp4": b"film"})
    unpacked(path, tmp_path / "to")
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["a.mp4"]
    assert not (tmp_path / "harmed").exists()


def test_more_bytes_than_there_is_room_for_are_not_written(tmp_path):
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    with pytest.raises(DamagedShardError, match="more than 3000 bytes of films"):
        unpacked(path, tmp_path / "to", most=3000)


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.mp4", b"one"), ("a.mp4", b"two")])
    with pytest.raises(DamagedShardError, match="lies where another one does"):
        unpacked(path, tmp_path / "to")


def test_a_tar_that_is_cut_anywhere_is_never_taken_for_a_whole_one(tmp_path):
    whole = write_tar(tmp_path / "x.tar", MEMBERS).read_bytes()
    end = len(whole) - len(whole.rstrip(b"\0"))  # an archive is filled up with zeros
    cuts = {*range(0, len(whole) - end, 97), *range(0, len(whole) - end, 512)}
    for number, cut in enumerate(sorted(cuts)):
        path = tmp_path / "cut.tar"
        path.write_bytes(whole[:cut])
        with pytest.raises(DamagedShardError, match=r"cut off|no whole tar"):
            unpacked(path, tmp_path / f"to{number}")


def test_a_damaged_header_is_found_where_it_stands(tmp_path):
    content = bytearray(write_tar(tmp_path / "x.tar", MEMBERS).read_bytes())
    at = content.index(b"b.mp4")
    content[at : at + 5] = b"c.mp4"
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(DamagedShardError, match="is damaged at byte"):
        unpacked(tmp_path / "x.tar", tmp_path / "to")


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, b"\x1f\x8b" + b"x" * 600])
def test_what_is_no_tar_is_refused(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(DamagedShardError):
        unpacked(tmp_path / "x.tar", tmp_path / "to")


def test_headers_do_not_stay_in_memory(tmp_path):
    path = write_tar(tmp_path / "x.tar", {f"{n}.mp4": b"" for n in range(2000)})
    with path.open("rb") as file:
        members = tar_members(file)
        first = next(members)
        for _ in itertools.islice(members, 1500):
            pass
        held = first.open.__closure__[1].cell_contents
        assert len(held.members) < 3
