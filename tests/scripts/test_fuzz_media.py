import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import fuzz_media
import mutations


@pytest.fixture
def originals(tmp_path, make_clip):
    """A folder with two films, and one with an annotation of each kind."""
    make_clip("films/clip.mp4", 30)
    make_clip("films/clip.avi", 20)
    entries = {
        "lvu": {"duration": 30, "num_frames": 300, "genre": "comedy"},
        "msvd": {"video": "a", "question": "who?", "answer": "he", "frame_length": 30},
        "youcook2": {"video": "a", "caption": "cut it", "frame_length": 30, "segment": "a_0",
                     "start_time": 0, "end_time": 2, "duration": 30},
    }  # fmt: skip
    for name, entry in entries.items():
        path = tmp_path / "sets" / name / "annotation" / "val.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"a": entry, "b": entry}))
    return tmp_path


def test_damaged_files_are_refused_or_read_exactly(originals, monkeypatch, capsys):
    arguments = ["--videos", originals / "films", "--annotations", originals / "sets",
                 "--count", 60, "--json"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["fuzz_media", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        fuzz_media.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["faults"] == []
    assert end.value.code == 0
    assert told["files"] == 60
    assert {"exact", "refused"} <= told.keys()


def test_a_fault_is_found(make_clip, monkeypatch):
    path = make_clip(frames=12)
    info, found = fuzz_media.looked_up(path, 0)
    assert fuzz_media.difference(info, found, path) == ""
    at_s, found_s, picture = found[-1]
    assert "another picture" in fuzz_media.difference(info, [(at_s, found_s, "other")], path)
    early = [(at_s, 0.0, picture)]
    assert "frame of 0.000" in fuzz_media.difference(info, early, path)


def test_a_frame_as_it_was_before_the_damage_is_no_fault(make_clip, tmp_path):
    film, other = make_clip("a.mp4", 12), make_clip("b.mp4", 12)
    _, found = fuzz_media.looked_up(film, 0)
    info = fuzz_media.probe(other)
    assert "another picture" in fuzz_media.difference(info, found, other)
    assert fuzz_media.difference(info, found, film) == ""


@pytest.mark.parametrize("way", mutations.OF_FILMS, ids=lambda way: way.__name__)
def test_damage_follows_from_the_seed(make_clip, way):
    content = make_clip(frames=12).read_bytes()
    once, again = (way(bytearray(content), np.random.default_rng(3)) for _ in range(2))
    assert once == again != content
