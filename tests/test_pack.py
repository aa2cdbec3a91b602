"""`mmavlm.pack`: sets become shards, and shards are read as the sets they were made of."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch

from mmavlm import check, pack
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.core.medium import FrameGrid, Medium
from mmavlm.core.options import Options
from mmavlm.core.turns import Shown, Turn
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.film_features import write_film_features
from mmavlm.data.item_table import ItemTable
from mmavlm.data.kept_items import items_of
from mmavlm.data.shards.index import SUFFIX
from mmavlm.data.shards.packed_items import item_of, plain_item
from mmavlm.data.shards.packing import Packing, planned
from mmavlm.data.shards.reader import ShardReader
from mmavlm.data.shards.store import ShardStore
from mmavlm.data.shards.work import Packer

FORMATS = [".tar", ".parquet"]


class Given:
    """A reader of items that are given."""

    def __init__(self, items):
        self.items = items

    def __call__(self, root, split, task):
        return list(self.items)

    def classes(self, root, task):
        return {"pets": ["cat", "dog"]}


def module_of(reader, root, **settings):
    return VideoDataModule(
        reader, root, **{"num_frames": 4, "image_size": 32, "max_broken": 0.0, **settings}
    )


def read_back(tmp_path, out, **settings):
    return ShardReader(out, ShardStore(tmp_path / "cache", gb=1, fetch_s=20), **settings)


@pytest.fixture
def mixed(tmp_path, make_clip):
    """Items of every kind, of films that lie in several folders; several are about one film."""
    root = tmp_path / "set"
    films = [make_clip(f"set/x/clip{n}.mp4", 10 + n) for n in range(4)]
    said = root / "said.srt"
    said.write_text("1\n00:00:00,000 --> 00:00:00,500\nhello\n")
    transcript = root / "heard.json"
    transcript.write_text('{"segments": [{"start": 0, "end": 1, "text": "hi"}]}')
    frames = root / "frames"
    frames.mkdir()
    from PIL import Image

    for number in range(1, 6):
        Image.new("RGB", (20, 16), (40 * number, 0, 0)).save(frames / f"frame{number:06d}.jpg")
    Image.new("RGB", (20, 16), "blue").save(root / "sky.png")
    features = root / "seen.safetensors"
    write_film_features(features, torch.rand(5, 2, 3), 1.0)

    def question(name, source, **rest):
        return Item.question(item_id=name, video_id=f"v-{source.name}", source=source,
                             prompt="what?", target="a cat", task="pets", **rest)  # fmt: skip

    sky = Medium(medium_id="sky", source=root / "sky.png", kind="picture")
    two = Conversation(
        (Turn("user", (Shown(0), Shown(1), "which?")), Turn("assistant", ("both",), learned=True)),
        (sky, Medium(medium_id="v-clip1.mp4", source=films[1], start_s=0.1, end_s=0.6)),
    )
    words = Conversation((Turn("user", ("hello",)), Turn("assistant", ("hi",), learned=True)))
    return [
        question("one", films[0], subtitles=said, references=("a cat", "cat"), label=0),
        question("two", films[0], start_s=0.2, end_s=0.7, meta={"pair": 3, "of": ["a", "b"]}),
        question("three", films[1], options=Options(("a cat", "a dog"), "texts")),
        Item(item_id="both", conversation=two, task="pets"),
        Item(item_id="words", conversation=words, task="talk"),
        question("four", frames, grid=FrameGrid(5, "windows")),
        question("five", features),
        question("six", films[2], subtitles=transcript),
        question("seven", films[3]),
    ]


def bare(item):
    """An item without where its films lie."""
    media = item.conversation.media
    plain = [replace(m, source=Path("."), subtitles=m.subtitles and Path(".")) for m in media]
    return replace(item, conversation=replace(item.conversation, media=tuple(plain)))


@pytest.mark.parametrize("kind", FORMATS)
def test_items_and_films_come_back_as_they_were(tmp_path, mixed, kind):
    data = module_of(Given(mixed), tmp_path)
    Packer(str(tmp_path / "out"), Packing(kind, shard_mb=0.01)).pack(data, "train")
    reader = read_back(tmp_path, tmp_path / "out")
    found = {item.item_id: item for item in reader(reader.films.folder(""), "train", None)}
    assert {name: bare(item) for name, item in found.items()} == {i.item_id: bare(i) for i in mixed}
    assert len(list((tmp_path / "out").glob(f"train-*{kind}"))) > 2
    for item in mixed:
        for before, after in zip(
            item.conversation.media, found[item.item_id].conversation.media, strict=True
        ):
            with reader.films.lent(after):
                pairs = [(before.source, after.source), (before.subtitles, after.subtitles)]
                for old, new in pairs:
                    if old is None:
                        assert new is None
                    elif old.is_dir():
                        names = sorted(path.name for path in old.iterdir())
                        assert sorted(path.name for path in new.iterdir()) == names
                        assert all((old / n).read_bytes() == (new / n).read_bytes() for n in names)
                    else:
                        assert old.read_bytes() == new.read_bytes()
    assert reader.classes(reader.films.root, None) == {"pets": ["cat", "dog"]}
    some = reader(reader.films.root, "train", "talk")
    assert [item.item_id for item in some] == ["words"]


def test_packed_items_that_are_many_are_kept_as_a_table(tmp_path, mixed, monkeypatch):
    monkeypatch.setattr("mmavlm.data.shards.reader.MANY", 1)
    Packer(str(tmp_path / "out"), Packing()).pack(module_of(Given(mixed), tmp_path), "train")
    reader = read_back(tmp_path, tmp_path / "out")
    folder = reader.films.folder("")
    table = items_of(reader, folder, "train", None, tmp_path / "index")
    assert isinstance(table, ItemTable)
    assert list(table) == list(reader(folder, "train", None))
    assert {item.item_id: bare(item) for item in table} == {i.item_id: bare(i) for i in mixed}
    some = items_of(reader, folder, "train", "talk", tmp_path / "index")
    assert [item.item_id for item in some] == ["words"]
    assert reader.films.nearby(table).shard.tolist().count(-1) == 1  # the one without a film


def test_what_a_model_sees_of_shards_is_what_it_sees_of_the_set(tmp_path, mixed):
    films = [item for item in mixed if item.item_id in {"one", "two", "six", "seven", "four"}]
    settings = {"subtitles": None, "crop": False, "flip": False}
    data = module_of(Given(films), tmp_path, **settings)
    Packer(str(tmp_path / "out"), Packing()).pack(data, "train")
    packed = module_of(read_back(tmp_path, tmp_path / "out"), "", **settings)
    assert [i.item_id for i in packed.items("train")] == [i.item_id for i in films]
    for at in range(len(films)):
        one, two = data.dataset("train")[0, at], packed.dataset("train")[0, at]
        assert torch.equal(one.films[0].frames, two.films[0].frames)
        assert one.item.conversation.turns == two.item.conversation.turns


def test_a_film_lies_once_in_a_shard_however_many_items_show_it(tmp_path, mixed):
    plans = list(planned(mixed, "train", Packing(shard_mb=1000)))
    assert [plan.name for plan in plans] == ["train-000000.tar"]
    assert len(plans[0].media) == len({m.source for i in mixed for m in i.conversation.media})


def test_a_shard_that_is_packed_twice_has_the_same_bytes(tmp_path, mixed):
    data = module_of(Given(mixed), tmp_path)
    for out in ("one", "two"):
        Packer(str(tmp_path / out), Packing(shard_mb=0.01)).pack(data, "train")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_is_there_is_not_written_again_and_what_is_missing_is(tmp_path, mixed):
    data, out = module_of(Given(mixed), tmp_path), tmp_path / "out"
    packer = Packer(str(out), Packing(shard_mb=0.01))
    packer.pack(data, "train")
    kept = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / f"train-000001.tar{SUFFIX}").unlink()  # it is written last
    told = packer.pack(data, "train")
    assert "1 written" in told
    changed = {path.name for path in out.iterdir() if kept.get(path) != path.stat().st_mtime_ns}
    assert changed == {"train-000001.tar", f"train-000001.tar{SUFFIX}"}


def test_shards_of_other_items_are_never_mixed_with_those_of_a_set(tmp_path, mixed):
    out = str(tmp_path / "out")
    Packer(out, Packing(shard_mb=0.01)).pack(module_of(Given(mixed), tmp_path), "train")
    fewer = module_of(Given(mixed[:2]), tmp_path)
    with pytest.raises(ConfigError, match=r"holds \d shards .* that this set does not have"):
        Packer(out, Packing(shard_mb=0.01)).pack(fewer, "train")
    changed = module_of(Given([replace(mixed[0], task="open"), *mixed[1:]]), tmp_path)
    with pytest.raises(ConfigError, match="is there, of other items, films or settings"):
        Packer(out, Packing(shard_mb=0.01)).pack(changed, "train")
    with pytest.raises(ConfigError, match="that this set does not have"):
        Packer(out, Packing(".parquet")).pack(module_of(Given(mixed), tmp_path), "train")


def test_films_may_become_jpegs_at_a_rate(tmp_path, make_clip):
    clip = make_clip("set/clip.mp4", 20)
    item = Item.question(item_id="i", video_id="v", source=clip, prompt="?", target="a", task="t")
    data = module_of(Given([item]), tmp_path)
    out = tmp_path / "out"
    Packer(str(out), Packing(frames_fps=5, frame_fps=5)).pack(data, "train")
    reader = read_back(tmp_path, out, frame_fps=5)
    (found,) = reader(reader.films.folder(""), "train", None)
    with reader.films.lent(found.film):
        assert len(list(found.film.source.glob("frame*.jpg"))) == 10
    with pytest.raises(ConfigError, match=r"holds JPEGs at 5 a second, but data.frame_fps is 10"):
        read_back(tmp_path, out, frame_fps=10)(tmp_path, "train", None)
    with pytest.raises(ConfigError, match=r"frames_fps=5, but data.frame_fps=10"):
        Packing(frames_fps=5)


def test_a_film_that_cannot_be_packed_is_counted_as_broken(tmp_path, make_clip):
    clips = [make_clip(f"set/clip{n}.mp4", 10) for n in range(3)]
    clips[1].write_bytes(b"no film")
    items = [Item.question(item_id=f"i{n}", video_id=f"v{n}", source=clip, prompt="?", target="a",
                           task="t") for n, clip in enumerate(clips)]  # fmt: skip
    packing = Packing(frames_fps=10)
    data = module_of(Given(items), tmp_path, max_broken=0.5)
    Packer(str(tmp_path / "out"), packing).pack(data, "train")
    assert data.broken.summary() == "1 of 3 videos broken or missing"
    reader = read_back(tmp_path, tmp_path / "out")
    assert [i.item_id for i in reader(reader.films.folder(""), "train", None)] == ["i0", "i2"]
    with pytest.raises(DataError, match="1 of 3 train videos are broken"):
        Packer(str(tmp_path / "strict"), packing).pack(module_of(Given(items), tmp_path), "train")


def test_a_file_of_a_kind_that_no_shard_holds_is_refused_by_name(tmp_path, make_clip):
    clip = make_clip("set/clip.mp4").rename(tmp_path / "set/clip.xyz")
    item = Item.question(item_id="i", video_id="v", source=clip, prompt="?", target="a", task="t")
    with pytest.raises(DataError, match=r"clip.xyz is of a kind that no shard holds \(.xyz\)"):
        Packer(str(tmp_path / "out"), Packing()).pack(module_of(Given([item]), tmp_path), "train")


@pytest.mark.parametrize(
    "change",
    [{"item_id": None, "rest": "{}"}, {"rest": "no json"}, {"rest": "[]"}, {"source": 3},
     {"rest": '{"talk": {"turns": [], "media": []}}'}],
)  # fmt: skip
def test_values_that_make_no_item_are_refused(mixed, change):
    item = replace(mixed[-1], references=("a cat",))
    names = {item.film.source: "0.mp4"}
    plain = plain_item(item, names)
    assert bare(item_of(json.loads(json.dumps(plain)), Path("/x"))) == bare(item)
    with pytest.raises(DataError):
        item_of({**plain, **change}, Path("/x"))


@pytest.mark.parametrize("name", ["../a.mp4", "/etc/passwd", "a/../../b.mp4"])
def test_an_item_that_names_a_film_elsewhere_is_refused(mixed, name):
    item = mixed[0]
    names = {item.film.source: "0.mp4", item.film.subtitles: name}
    with pytest.raises(DataError, match="is none that a member may have"):
        item_of(plain_item(item, names), Path("/x"))


def test_shards_in_memory_are_packed_and_read(tmp_path, mixed):
    out = "memory://packed/set"
    Packer(out, Packing(shard_mb=0.01)).pack(module_of(Given(mixed), tmp_path), "train")
    reader = read_back(tmp_path, out)
    assert len(reader(reader.films.folder(""), "train", None)) == len(mixed)


def test_an_index_of_another_version_of_a_shard_is_not_believed(tmp_path, mixed, monkeypatch):
    monkeypatch.setattr("mmavlm.data.shards.fetching.FIRST_WAIT_S", 0.01)
    out = tmp_path / "out"
    Packer(str(out), Packing()).pack(module_of(Given(mixed), tmp_path), "train")
    shard = out / "train-000000.tar"
    content = shard.read_bytes()
    shard.write_bytes(content + bytes(512))
    with pytest.raises(DataError, match="its index is of one with"):
        read_back(tmp_path, out)(tmp_path, "train", None)
    shard.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    reader = read_back(tmp_path / "other", out)
    items = reader(reader.films.folder(""), "train", None)
    with pytest.raises(DataError, match="its checksum is"), reader.films.lent(items[0].film):
        pass
    shard.write_bytes(content)
    Path(f"{shard}{SUFFIX}").unlink()
    with pytest.raises(DataError, match="mmavlm packed it, but its index"):
        read_back(tmp_path / "third", out)(tmp_path, "train", None)


def test_the_command_packs_all_splits_and_check_reads_them(run, films, tmp_path, capsys):
    out, cache = tmp_path / "out", f"data.reader.store.cache={tmp_path}/cache"
    arguments = ["data=captions", f"data.root={films}", f"out={out}", "processes=1", "shard_mb=0.2"]
    assert run(pack, *arguments) == 0
    said = capsys.readouterr().out
    assert f"data=shards data.root={out}" in said
    assert run(check, "data=shards", f"data.root={out}", cache, "format=json") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["splits"]
    assert {name: split["items"] for name, split in found.items()} == {
        split: len((films / f"captions/{split}.jsonl").read_text().splitlines())
        for split in ("train", "val", "test")
    }
    assert run(pack, "data=shards", f"data.root={out}", cache, f"out={tmp_path}/again") == 1
    assert "lies in shards already" in capsys.readouterr().err
    assert run(pack, "data=captions", f"data.root={films}", f"out={out}", "format=zip") == 1
    assert "format=zip is unknown; choose tar or parquet" in capsys.readouterr().err


@pytest.mark.slow
def test_packing_that_is_killed_goes_on_and_ends_with_the_same_shards(films, tmp_path):
    def command(out):
        arguments = ["data=captions", f"data.root={films}", f"out={out}", "processes=2",
                     "shard_mb=0.05", "splits=[train]"]  # fmt: skip
        return [sys.executable, "-m", "mmavlm.pack", *arguments]

    subprocess.run(command(tmp_path / "whole"), check=True, cwd=tmp_path, capture_output=True)
    whole = {p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()}
    for number in range(3):
        process = subprocess.Popen(
            command(tmp_path / "cut"), cwd=tmp_path, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 60
        while len(list((tmp_path / "cut").glob(f"*{SUFFIX}"))) <= number:
            assert time.monotonic() < until
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command(tmp_path / "cut"), check=True, cwd=tmp_path, capture_output=True)
    there = {p.name: p.read_bytes() for p in (tmp_path / "cut").iterdir() if p.name[0] != "."}
    assert there == whole


def test_what_is_there_of_a_bucket_is_not_written_again(tmp_path, mixed):
    packer = Packer("memory://packed/twice", Packing())
    data = module_of(Given(mixed), tmp_path)
    assert "1 written" in packer.pack(data, "train")
    assert "0 written" in packer.pack(data, "train")
    assert fsspec.filesystem("memory").exists("/packed/twice/train-000000.tar")
