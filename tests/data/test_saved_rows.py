"""Rows that Hugging Face datasets saved are read as the same rows of a jsonl."""

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.readers import OwnReader, SavedRowsReader

ROWS = [
    {"video": "a.mp4", "prompt": "what barks?", "answer": "a dog", "task": "sound", "start_s": 1.5},
    {"video": "clips/b.mp4", "prompt": "who is she?", "answer": "a judge", "task": None,
     "start_s": None},
]  # fmt: skip


@pytest.fixture
def datasets():
    return pytest.importorskip("datasets", reason="the package datasets is not installed")


def plain(items):
    return [
        (i.film.source, i.prompt, i.target, i.task, i.film.start_s, i.references) for i in items
    ]


@pytest.fixture
def expected(tmp_path):
    """The items of a jsonl with the same rows."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "train.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return [(tmp_path / film.relative_to(own), *rest)
            for film, *rest in plain(OwnReader()(own, "train", None))]  # fmt: skip


def test_what_save_to_disk_wrote_is_read_as_a_jsonl_with_the_same_rows(
    datasets, tmp_path, expected
):
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(tmp_path / "train", num_shards=2)
    datasets.DatasetDict({"train": saved, "validation": saved}).save_to_disk(tmp_path / "all")
    found = plain(SavedRowsReader()(tmp_path, "train", None))
    assert found == [tuple(row) for row in expected]
    for split in ("train", "val"):
        assert plain(SavedRowsReader("all")(tmp_path, split, None)) == found
    assert plain(SavedRowsReader(train="all/validation")(tmp_path, "train", None)) == found


def test_parquet_files_are_read_by_their_names(datasets, tmp_path, expected):
    (tmp_path / "data").mkdir()
    for number, row in enumerate(ROWS):
        part = tmp_path / f"data/train-{number:05d}-of-00002.parquet"
        datasets.Dataset.from_list([row]).to_parquet(part)
    found = plain(SavedRowsReader()(tmp_path, "train", None))
    assert found == [tuple(row) for row in expected]
    named = SavedRowsReader(test="data/train-*.parquet")
    assert plain(named(tmp_path, "test", None)) == found


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)


def test_films_may_be_given_by_absolute_paths_below_the_root_and_as_videos(tmp_path):
    path = str(tmp_path / "clips/a.mp4")
    of_path = [{"video": path, "prompt": "why?", "answer": "so"}]
    write(tmp_path / "train.parquet", of_path)
    (item,) = SavedRowsReader()(tmp_path, "train", None)
    assert item.film.source == tmp_path / "clips/a.mp4"
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({
        "video": pa.array([{"bytes": None, "path": path}], struct),
        "prompt": ["why?"], "answer": ["so"], "picture": pa.array([b"1"]),
    })  # fmt: skip
    parquet.write_table(table, tmp_path / "test.parquet")
    assert plain(SavedRowsReader()(tmp_path, "test", None)) == plain([item])


def test_columns_may_have_other_names(tmp_path):
    write(tmp_path / "train.parquet", [{"clip": str(tmp_path / "a.mp4"), "q": "why?", "a": "so"}])
    with pytest.raises(DataError, match=r"data.reader.keys=\{video:clip,prompt:q,answer:a\}"):
        SavedRowsReader()(tmp_path, "train", None)
    keys = {"video": "clip", "prompt": "q", "answer": "a"}
    (item,) = SavedRowsReader(keys=keys)(tmp_path, "train", None)
    assert (item.prompt, item.target, item.film.source) == ("why?", "so", tmp_path / "a.mp4")
    with pytest.raises(ConfigError, match=r"data.reader.keys names \['vidoe'\]"):
        SavedRowsReader(keys={"vidoe": "clip"})


def test_what_cannot_be_read_is_told(tmp_path):
    row = {"video": "a.mp4", "prompt": "why?", "answer": "so"}
    with pytest.raises(DataError, match=r"holds no rows named train, but nothing; expected a fold"):
        SavedRowsReader()(tmp_path, "train", None)
    write(tmp_path / "train.parquet", [row, {**row, "video": "/elsewhere/a.mp4"}])
    with pytest.raises(DataError, match=r"row 1: 'video': '/elsewhere/a.mp4' leads out of"):
        SavedRowsReader()(tmp_path, "train", None)
    write(tmp_path / "data/training.parquet", [row])
    with pytest.raises(DataError, match=r"say which with data.reader.train="):
        SavedRowsReader()(tmp_path, "train", None)
    (tmp_path / "test.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"test.parquet cannot be read"):
        SavedRowsReader()(tmp_path, "test", None)
    (tmp_path / "val").mkdir()
    (tmp_path / "val/state.json").write_text('{"_data_files": [{"filename": "../../a.arrow"}]}')
    with pytest.raises(DataError, match="leads out of"):
        SavedRowsReader()(tmp_path, "val", None)
    (tmp_path / "val/state.json").write_text("{}")
    with pytest.raises(DataError, match=r"state.json cannot be read .* save the set again"):
        SavedRowsReader()(tmp_path, "val", None)


def test_films_that_lie_in_the_rows_are_refused_with_what_reads_them(tmp_path):
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    film = pa.array([{"bytes": b"film", "path": "a.mp4"}], struct)
    table = pa.table({"video": film, "prompt": ["why?"], "answer": ["so"]})
    parquet.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(
        DataError, match=r"as bytes in its column 'video'; save that column as texts"
    ):
        SavedRowsReader()(tmp_path, "train", None)


def test_a_column_of_videos_is_read_by_its_paths_unless_the_films_were_put_into_it(
    datasets, make_clip, tmp_path
):
    row = {"video": str(make_clip("a.mp4")), "prompt": "why?", "answer": "so"}
    saved = datasets.Dataset.from_list([row]).cast_column("video", datasets.Video())
    saved.to_parquet(tmp_path / "train.parquet")
    (item,) = SavedRowsReader()(tmp_path, "train", None)
    assert item.film.source == tmp_path / "a.mp4"
    saved.save_to_disk(tmp_path / "test")
    with pytest.raises(DataError, match=r"arrow holds films as bytes in its column 'video'"):
        SavedRowsReader()(tmp_path, "test", None)
