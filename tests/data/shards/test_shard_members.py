import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.errors import DataError
from mmavlm.data.shards.members import Sample, check_name, part_of


@pytest.mark.parametrize(
    ("name", "key", "what", "path"),
    [
        ("a/b/0001.mp4", "a/b/0001", "video", "a/b/0001.mp4"),
        ("./0001.MP4", "0001", "video", "0001.MP4"),
        ("0001.json", "0001", "json", "0001.json"),
        ("0001.txt", "0001", "txt", "0001.txt"),
        ("0001.items.json", "0001", "items", "0001.items.json"),
        ("0001.said.json", "0001", "said", "0001.said.json"),
        ("0001.000007.jpg", "0001", "frame", "0001.frames"),
        ("0001.frame000007.jpeg", "0001", "frame", "0001.frames"),
        ("0001.jpg", "0001", "picture", "0001.jpg"),
        ("0001.film_features.safetensors", "0001", "features", "0001.film_features.safetensors"),
        ("0001.wav", "0001", "sound", "0001.wav"),
        ("0001.en.srt", "0001", "said", "0001.en.srt"),
    ],
)
def test_a_member_is_known_by_its_name(name, key, what, path):
    part = part_of(name)
    assert (part.key, part.what, part.path) == (key, what, path)


@pytest.mark.parametrize("name", ["a.pyd", "a.pth", "a.pickle", "a.npz", "a.sh", "README", "a.cls"])
def test_what_is_not_read_is_left_where_it_is(name):
    assert part_of(name) is None


@pytest.mark.parametrize(
    "name",
    ["../a.mp4", "/etc/a.mp4", "a/../../b.mp4", "a//b.mp4", "a\\..\\b.mp4", "C:/a.mp4", "c:a.mp4",
     ".hidden.mp4", "a/.bytes", "a\0.mp4", "a\n.mp4", "x" * 300 + ".mp4", "a/" * 20 + "b.mp4",
     "\ud800.mp4", "a/", "."],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(DataError, match="is none that a member may have"):
        part_of(name)


@given(st.text(max_size=40))
def test_whatever_a_member_is_called_it_lies_below_its_folder(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "inside"
    try:
        check_name(name)
    except DataError:
        return
    path = folder / name
    assert path.resolve().is_relative_to(folder.resolve())
    assert not any(part.startswith(".") for part in name.split("/"))


def test_of_several_things_a_film_is_shown():
    names = ("a.jpg", "a.000001.jpg", "a.safetensors", "a.mp4", "a.wav")
    sample = Sample("a", {part.path: part for part in map(part_of, names)})
    assert sample.shown.path == "a.mp4"
    del sample.parts["a.mp4"]
    assert sample.shown.what == "features"
