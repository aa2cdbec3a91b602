import io
import json
import tarfile

import fsspec
import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.dataset import BrokenItem
from mmavlm.data.inspect import inspect
from mmavlm.data.item_table import ItemTable
from mmavlm.data.kept_items import items_of
from mmavlm.data.readers.heard import HeardReader
from mmavlm.data.shards.reader import ShardReader
from mmavlm.data.shards.store import ShardStore
from mmavlm.data.sources import FrameSource
from shard_sets import captioned, served, write_tar

SPLITS = {"val": "train-*.tar", "test": "train-*.tar"}


@pytest.fixture
def clips(make_clip):
    return [make_clip(f"clip{number}.mp4", 8 + number) for number in range(6)]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("mmavlm.data.shards.fetching.FIRST_WAIT_S", 0.01)


def reader_of(tmp_path, root, **settings):
    return ShardReader(root, ShardStore(tmp_path / "cache", gb=1, fetch_s=20), **settings)


def read(reader, split="train", task=None):
    return reader(reader.films.folder(""), split, task)


def module_of(reader, **settings):
    return VideoDataModule(
        reader, "unused", **{"num_frames": 4, "image_size": 32, "max_broken": 0.5, **settings}
    )


def test_captions_of_webdataset_become_items_and_no_film_is_fetched_for_it(tmp_path, clips):
    told = captioned(tmp_path / "set", clips, per_shard=2)
    reader = reader_of(tmp_path, tmp_path / "set")
    items = read(reader)
    assert {item.item_id: item.target for item in items} == told
    assert items[3].video_id == "train-000001.tar/000003.mp4"
    assert not list(reader.films.root.rglob("*.mp4"))
    with reader.films.lent(items[3].film):
        assert len(FrameSource.of(items[3].film).times_s) == 8 + 3


def test_a_start_from_kept_indices_opens_no_shard(tmp_path, clips):
    captioned(tmp_path / "set", clips, per_shard=2)
    with served(tmp_path / "set") as server:
        pattern = "train-{000000..000002}.tar"
        first = read(reader_of(tmp_path, server.address, train=pattern))
        asked = server.asked.total()
        assert asked > 0
        assert read(reader_of(tmp_path, server.address, train=pattern)) == first
        assert server.asked.total() == asked


def test_a_real_webdataset_writer_and_ours_give_the_same_items(tmp_path, clips):
    webdataset = pytest.importorskip("webdataset")
    captioned(tmp_path / "ours", clips, per_shard=2)
    (tmp_path / "theirs").mkdir()
    pattern = str(tmp_path / "theirs/train-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=2, verbose=0) as writer:
        for number, clip in enumerate(clips):
            caption = f"film {number} shows a {'dog' if number % 2 else 'cat'}"
            writer.write({"__key__": f"{number:06d}", "mp4": clip.read_bytes(),
                          "json": {"caption": caption}})  # fmt: skip

    def told(name):
        items = read(reader_of(tmp_path / name, tmp_path / name))
        return [(item.item_id, item.video_id, item.conversation.turns) for item in items]

    assert told("ours") == told("theirs")


def test_questions_may_be_several_about_a_film(tmp_path, clips):
    rows = [
        {"prompt": "what?", "answer": "a cat", "task": "pets"},
        {"prompt": "which?", "answer": "b", "options": ["a", "b"], "task": "letters"},
    ]
    members = {"k/0.mp4": clips[0].read_bytes(), "k/0.json": json.dumps(rows).encode()}
    write_tar(tmp_path / "set/train-0.tar", members)
    reader = reader_of(tmp_path, tmp_path / "set", rows="questions", closed=["pets"])
    one, two = read(reader)
    assert (one.item_id, two.item_id) == ("train-0.tar/k/0#0", "train-0.tar/k/0#1")
    assert (one.target, one.label, two.target) == ("a cat", 0, "B")
    assert one.film.source == two.film.source
    assert reader.classes(reader.films.root, None) == {"pets": ["a cat"]}
    assert [item.target for item in read(reader, task="letters")] == ["B"]


def test_texts_frames_and_pictures_are_films_too(tmp_path, clips):
    picture = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (20, 20), "red").save(picture, "JPEG")
    jpeg = picture.getvalue()
    members = {"a.txt": b"a red film", **{f"a.{n:03d}.jpg": jpeg for n in range(3)},
               "b.txt": b"a red picture", "b.jpg": jpeg}  # fmt: skip
    write_tar(tmp_path / "set/train-0.tar", members)
    reader = reader_of(tmp_path, tmp_path / "set")
    data = module_of(reader)
    assert [item.film.kind for item in data.items("train")] == ["film", "picture"]
    for sample in map(data.dataset("train").__getitem__, range(2)):
        assert not isinstance(sample, BrokenItem)
        assert sample.films[0].frames.shape[1:] == (3, 32, 32)


def test_films_in_parquet_are_read_beside_their_columns(tmp_path, clips):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "set").mkdir()
    films = [{"bytes": clip.read_bytes(), "path": f"x/{clip.name}"} for clip in clips]
    rows = pa.table({"clip": films, "text": [f"film {n}" for n in range(6)]})
    pq.write_table(rows, tmp_path / "set/train-0.parquet")
    reader = reader_of(tmp_path, tmp_path / "set", video="clip", keys={"caption": "text"})
    data = module_of(reader)
    assert [item.target for item in data.items("train")] == [f"film {n}" for n in range(6)]
    assert not isinstance(data.dataset("train")[5], BrokenItem)


def test_other_names_of_keys_are_told_as_elsewhere(tmp_path, clips):
    members = {"a.mp4": clips[0].read_bytes(), "a.json": b'{"text": "a cat"}'}
    write_tar(tmp_path / "set/train-0.tar", members)
    with pytest.raises(DataError, match=r"data.reader.keys={caption:text}"):
        read(reader_of(tmp_path, tmp_path / "set"))
    (item,) = read(reader_of(tmp_path, tmp_path / "set", keys={"caption": "text"}))
    assert item.target == "a cat"
    with pytest.raises(ConfigError, match="a row is about its own film"):
        reader_of(tmp_path, tmp_path / "set", keys={"video": "url"})


def test_samples_that_cannot_be_used_are_named_and_the_others_kept(tmp_path, clips):
    film = clips[0].read_bytes()
    link = tarfile.TarInfo("e.mp4")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members = [
        ("a.mp4", film), ("a.txt", b"fine"), ("b.txt", b"no film"), ("c.mp4", film),
        ("d.mp4", film), ("d.json", b"{no json"), (link, b""), ("../f.mp4", film),
    ]  # fmt: skip
    write_tar(tmp_path / "set/train-0.tar", members)
    reader = reader_of(tmp_path, tmp_path / "set")
    assert [item.target for item in read(reader)] == ["fine"]
    skipped = reader.skipped(reader.films.root, "train", None)
    assert len(skipped) == 5
    said = "\n".join(skipped.values())
    for words in ("b: it shows no film", "c: nothing is said of it", "d: what is said of it",
                  "'e.mp4' is no plain file", "'../f.mp4' is none"):  # fmt: skip
        assert words in said


@pytest.mark.usefixtures("quick")
def test_a_shard_that_nobody_can_look_into_counts_as_many_films_as_others_hold(
    tmp_path, clips, caplog
):
    captioned(tmp_path / "set", clips, per_shard=2)
    (tmp_path / "set/train-000001.tar").write_bytes(b"broken" * 300)
    reader = reader_of(tmp_path, tmp_path / "set", **SPLITS)
    data = module_of(reader)
    assert len(data.items("train")) == 4
    assert data.broken.summary() == "2 of 6 videos broken or missing"
    assert "train-000001.tar cannot be read" in caplog.text
    strict = module_of(reader_of(tmp_path, tmp_path / "set"), max_broken=0.1)
    with pytest.raises(DataError, match="2 of 6 train videos are broken"):
        strict.items("train")


@pytest.mark.usefixtures("quick")
def test_a_shard_that_dies_during_a_run_is_named_and_the_run_goes_on(tmp_path, clips):
    captioned(tmp_path / "set", clips, per_shard=2)
    with served(tmp_path / "set") as server:
        reader = reader_of(tmp_path, server.address, train="train-{000000..000002}.tar")
        dataset = module_of(reader).dataset("train")
        server.always("train-000001.tar", 500)
        found = [dataset[index] for index in range(6)]
        assert [isinstance(one, BrokenItem) for one in found] == [False, False, True, True] + 2 * [
            False
        ]
        assert found[2].video_id == "train-000001.tar/000002.mp4"
        assert f"the shard {server.address}/train-000001.tar cannot be fetched" in found[2].reason


def test_a_set_without_shards_says_how_to_name_them(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match=r"no shards train-.* name them with data.reader.train="):
        read(reader_of(tmp_path, tmp_path / "set"))


@pytest.mark.usefixtures("quick")
def test_shards_of_which_none_can_be_read_stop_a_run(tmp_path):
    reader = reader_of(tmp_path, tmp_path, train="gone-{0..1}.tar")
    with pytest.raises(DataError, match=r"none of 2 shards can be read: the shard .*gone-0.tar"):
        read(reader)


def test_files_of_other_kinds_are_no_shards(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"x.tar.gz is no shard .* .tar and .parquet"):
        read(reader_of(tmp_path, tmp_path, train="x.tar.gz"))


def test_a_folder_in_memory_is_a_set_like_any_other(tmp_path, clips):
    told = captioned(tmp_path / "set", clips, per_shard=3)
    for shard in (tmp_path / "set").iterdir():
        with fsspec.open(f"memory://reader-set/{shard.name}", "wb") as file:
            file.write(shard.read_bytes())
    data = module_of(reader_of(tmp_path, "memory://reader-set"))
    assert {item.item_id: item.target for item in data.items("train")} == told
    assert not isinstance(data.dataset("train")[5], BrokenItem)


def test_check_opens_what_shards_hold(tmp_path, clips):
    captioned(tmp_path / "set", clips, per_shard=2)
    reader = reader_of(tmp_path, tmp_path / "set", **SPLITS)
    found = inspect(reader, str(tmp_path / "set"), None, decode=True, seen_s=0.5).splits["train"]
    assert (found.items, found.videos, found.missing_videos, found.broken) == (6, 6, 0, {})
    assert any("are longer than the 0.5 s" in note for note in found.notes)


def test_films_of_shards_may_be_heard(tmp_path, clips):
    captioned(tmp_path / "set", clips, per_shard=2)
    reader = HeardReader(reader_of(tmp_path, tmp_path / "set"))
    assert module_of(reader).films is reader.reader.films


def test_unknown_rows_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data.reader.rows=chats is unknown"):
        reader_of(tmp_path, tmp_path, rows="chats")


def test_what_needs_all_films_at_hand_is_refused(tmp_path):
    reader = reader_of(tmp_path, tmp_path)
    for setting, value in (("cache", tmp_path), ("counterfactual", True)):
        with pytest.raises(ConfigError, match=rf"data.{setting} needs all films at hand"):
            module_of(reader, **{setting: value})


def table_of(tmp_path, reader, monkeypatch):
    """The items of a reader as a table, which is kept if they are many: here, if there is one."""
    monkeypatch.setattr("mmavlm.data.shards.reader.MANY", 1)
    folder = reader.films.folder("")
    return items_of(reader, folder, "train", None, tmp_path / "index")


def test_items_that_are_many_are_kept_as_a_table(tmp_path, clips, monkeypatch):
    captioned(tmp_path / "set", clips, per_shard=2)
    write_tar(tmp_path / "set/train-9.tar", {"a.txt": b"a sky", "a.png": clips[0].read_bytes()})
    reader = reader_of(tmp_path, tmp_path / "set")
    table = table_of(tmp_path, reader, monkeypatch)
    assert isinstance(table, ItemTable)
    assert list(table) == list(read(reader)) != []
    again = table_of(tmp_path, reader_of(tmp_path, tmp_path / "set"), monkeypatch)
    assert again.folder == table.folder
    nearby, listed = reader.films.nearby(table), reader.films.nearby(list(table))
    assert nearby.shard.tolist() == listed.shard.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert nearby.groups == listed.groups


def test_a_table_is_of_the_shards_that_are_there(tmp_path, clips, monkeypatch):
    captioned(tmp_path / "set", clips, per_shard=2)
    before = table_of(tmp_path, reader_of(tmp_path, tmp_path / "set"), monkeypatch)
    write_tar(tmp_path / "set/train-7.tar", {"a.txt": b"more", "a.mp4": clips[0].read_bytes()})
    after = table_of(tmp_path, reader_of(tmp_path, tmp_path / "set"), monkeypatch)
    assert (len(before), len(after)) == (6, 7)
    (tmp_path / "set/train-7.tar").unlink()
    assert len(table_of(tmp_path, reader_of(tmp_path, tmp_path / "set"), monkeypatch)) == 6


@pytest.mark.usefixtures("quick")
def test_a_shard_that_nobody_can_look_into_counts_beside_a_table_too(tmp_path, clips, monkeypatch):
    monkeypatch.setattr("mmavlm.data.shards.reader.MANY", 1)
    captioned(tmp_path / "set", clips, per_shard=2)
    (tmp_path / "set/train-000001.tar").write_bytes(b"broken" * 300)
    for _ in range(2):
        data = module_of(reader_of(tmp_path, tmp_path / "set"), index=tmp_path / "index")
        assert isinstance(data.items("train"), ItemTable)
        assert data.broken.summary() == "2 of 6 videos broken or missing"
        assert not isinstance(data.dataset("train")[3], BrokenItem)
