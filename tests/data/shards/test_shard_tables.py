import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmavlm.core.errors import ConfigError
from mmavlm.data.shards.reading import DamagedShardError, unpack
from mmavlm.data.shards.tables import Columns, parquet_members, parquet_samples

COLUMNS = Columns()
ROWS = {"caption": ["a cat", "a dog"], "views": [3, None]}


def table(path, films, **columns):
    pq.write_table(pa.table({"video": films, **columns}), path)
    return path


def both(path, folder, columns=COLUMNS):
    with path.open("rb") as file:
        found = parquet_samples(file, columns)
    with path.open("rb") as file:
        unpack(parquet_members(file, columns), folder, 10**9)
    return found


def test_rows_are_samples_and_their_bytes_films(tmp_path):
    path = table(tmp_path / "x.parquet", [b"film a", b"film b"], **ROWS)
    one, two = both(path, tmp_path / "to")
    assert json.loads(one.texts["json"]) == {"caption": "a cat", "views": 3}
    for sample, content in ((one, b"film a"), (two, b"film b")):
        assert (tmp_path / "to" / sample.shown.path).read_bytes() == content
    assert two.shown.path == "00000001.mp4"


def test_films_beside_their_path_have_its_suffix_and_never_its_name(tmp_path):
    films = [{"bytes": b"a", "path": "/etc/x.webm"}, {"bytes": b"b", "path": None}]
    one, two = both(table(tmp_path / "x.parquet", films), tmp_path / "to")
    assert (one.shown.path, two.shown.path) == ("00000000.webm", "00000001.mp4")
    assert sorted(p.name for p in (tmp_path / "to").iterdir()) == ["00000000.webm", "00000001.mp4"]


def test_a_row_without_a_known_film_is_named(tmp_path):
    films = [{"bytes": b"a", "path": "x.exe"}, {"bytes": b"b", "path": "y.mp4"}]
    one, two = both(table(tmp_path / "x.parquet", films), tmp_path / "to")
    assert one.problems == ["its 'video' is no film that is known"]
    assert not two.problems


def test_another_column_may_have_the_films(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"clip": [b"a"], "text": ["said"]}), path)
    with pytest.raises(ConfigError, match=r"data.reader.video=video, but .* clip, text"):
        both(path, tmp_path / "to")
    (sample,) = both(path, tmp_path / "to", Columns("clip", ".gif"))
    assert sample.shown.path == "00000000.gif"


def test_a_table_that_is_cut_or_something_else_is_refused(tmp_path):
    whole = table(tmp_path / "x.parquet", [b"film a" * 100] * 50).read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], b"", b"PAR1" + b"x" * 50 + b"PAR1"):
        (tmp_path / "cut.parquet").write_bytes(content)
        with pytest.raises(DamagedShardError, match="no whole Parquet file"):
            both(tmp_path / "cut.parquet", tmp_path / "to")
