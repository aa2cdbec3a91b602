import json

import pytest

from mmavlm.data.shards.index import FORMAT, Header, Shard, entries_of, header_of, lines_of
from mmavlm.data.shards.members import Sample, part_of
from mmavlm.data.shards.places import Place, Told
from mmavlm.data.shards.reading import DamagedShardError


def sample(*names, **texts):
    parts = {part.path: part for part in map(part_of, names)}
    return Sample("a", parts, {what: text.encode() for what, text in texts.items()})


def test_a_header_is_read_as_it_was_written():
    header = Header("x.tar", 3, 7, packed=True, classes={"pets": ["cat"]}, frame_fps=10.0)
    first, *lines = lines_of(header, [{"item": {"a": "ä"}}]).decode().splitlines()
    found = header_of(first)
    assert (found.lines, found.bytes, found.crc32, found.classes) == (1, 3, 7, {"pets": ["cat"]})
    assert [json.loads(line) for line in lines] == [{"item": {"a": "ä"}}]


@pytest.mark.parametrize(
    "values",
    [{"format": "another"}, {"bytes": "x"}, {"classes": ["a"]}, {"classes": {"a": [1]}},
     {"unknown": 1}, {"lines": None}, {"columns": ["a"]}, {"frame_fps": "fast"}],
)  # fmt: skip
def test_a_header_of_something_else_is_refused(values):
    told = {"format": FORMAT, "shard": "x.tar", **values}
    with pytest.raises(DamagedShardError, match="its index is none of mmavlm's"):
        header_of(json.dumps(told))


@pytest.mark.parametrize("line", ["", "[]", "{", "3", "[" * 10_000])
def test_a_line_that_is_no_header_is_refused(line):
    with pytest.raises(DamagedShardError):
        header_of(line)


def test_a_shard_has_another_folder_when_it_or_how_it_is_read_changes():
    place = Place("/x/train 0.tar")
    folders = {
        Shard(place, Told(1, "a")).folder,
        Shard(place, Told(2, "a")).folder,
        Shard(place, Told(1, "b")).folder,
        Shard(Place("/y/train 0.tar"), Told(1, "a")).folder,
    }
    assert len(folders) == 4
    assert all(folder.startswith("train_0_tar-") and "." not in folder for folder in folders)


def test_json_and_text_of_a_sample_make_its_rows():
    [one] = entries_of(sample("a.mp4", json='{"id": "x"}', txt=" said \n"))
    assert one == {"key": "a", "film": "a.mp4", "kind": "film",
                   "values": {"caption": "said", "id": "x"}}  # fmt: skip
    two = list(entries_of(sample("a.mp4", json='[{"n": 1}, {"n": 2}]')))
    assert [entry["key"] for entry in two] == ["a#0", "a#1"]


@pytest.mark.parametrize(
    ("texts", "said"),
    [({"json": "3"}, "no JSON objects"), ({"json": "["}, "cannot be read"), ({}, "nothing is said"),
     ({"json": '"\\ud800"'}, "no JSON objects"), ({"items": "[]"}, "cannot be read")],
)  # fmt: skip
def test_what_cannot_be_read_of_a_sample_is_named(texts, said):
    [entry] = entries_of(sample("a.mp4", **texts))
    assert said in entry["problem"]
