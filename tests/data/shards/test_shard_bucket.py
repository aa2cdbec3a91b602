"""Shards in a bucket, of a server that speaks S3."""

import logging

import pytest

from mmavlm.core.items import Item
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.dataset import BrokenItem
from mmavlm.data.shards.fetching import LostShardError
from mmavlm.data.shards.packing import Packing
from mmavlm.data.shards.reader import ShardReader
from mmavlm.data.shards.store import ShardStore
from mmavlm.data.shards.work import Packer
from shard_sets import captioned

boto3 = pytest.importorskip("boto3", reason="boto3, which moto brings, is not installed")
pytest.importorskip("s3fs", reason="s3fs, which reads buckets, is not installed")
moto = pytest.importorskip("moto.server", reason="moto, a server that speaks S3, is not installed")

SECRET = "a-secret-access-key-of-a-test"


@pytest.fixture(scope="module")
def endpoint():
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint, monkeypatch, request):
    """A bucket of its own, and the options by which it is reached; keys come by the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key-of-a-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr("mmavlm.data.shards.fetching.FIRST_WAIT_S", 0.01)
    name = request.node.name.replace("_", "-")[:60].strip("-")
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=name)
    return client, name, {"client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"}}


def module_of(tmp_path, address, options, **settings):
    store = ShardStore(tmp_path / "cache", gb=1, fetch_s=30, tries=2, options=options)
    reader = ShardReader(address, store, **settings)
    return VideoDataModule(reader, address, num_frames=4, image_size=32, max_broken=0.9)


def test_what_was_packed_into_a_bucket_is_read_from_it(tmp_path, make_clip, bucket):
    _, name, options = bucket
    clips = [make_clip(f"set/clip{n}.mp4", 8 + n) for n in range(4)]
    items = [Item.question(item_id=f"i{n}", video_id=f"v{n}", source=clip, prompt="what?",
                           target="a", task="t") for n, clip in enumerate(clips)]  # fmt: skip

    def reader(root, split, task):
        return items

    reader.classes = lambda root, task: {}
    address = f"s3://{name}/sets/mine"
    packer = Packer(address, Packing(shard_mb=0.005), options=options)
    data = VideoDataModule(reader, tmp_path, num_frames=4, image_size=32)
    assert "4 items and 4 films" in packer.pack(data, "train")
    assert "0 written" in packer.pack(data, "train")
    read = module_of(tmp_path, address, options)
    assert [item.item_id for item in read.items("train")] == [f"i{n}" for n in range(4)]
    for index in range(4):
        sample = read.dataset("train")[index]
        assert not isinstance(sample, BrokenItem), sample.reason


def test_shards_of_others_are_found_by_a_glob_or_by_braces(tmp_path, make_clip, bucket):
    client, name, options = bucket
    told = captioned(tmp_path / "set", [make_clip(f"c{n}.mp4") for n in range(4)], per_shard=2)
    for shard in (tmp_path / "set").iterdir():
        client.upload_file(str(shard), name, f"x/{shard.name}")
    for pattern in (None, "train-{000000..000001}.tar"):
        data = module_of(tmp_path, f"s3://{name}/x", options, train=pattern)
        assert {item.item_id: item.target for item in data.items("train")} == told
        assert not isinstance(data.dataset("train")[3], BrokenItem)


def test_a_shard_that_is_gone_is_named_and_no_key_is_told(tmp_path, make_clip, bucket, caplog):
    caplog.set_level(logging.INFO, logger="mmavlm")
    client, name, options = bucket
    captioned(tmp_path / "set", [make_clip(f"c{n}.mp4") for n in range(4)], per_shard=2)
    for shard in (tmp_path / "set").iterdir():
        client.upload_file(str(shard), name, f"x/{shard.name}")
    data = module_of(tmp_path, f"s3://{name}/x", options)
    items = data.items("train")
    client.delete_object(Bucket=name, Key="x/train-000001.tar")
    gone = pytest.raises(LostShardError, match=r"train-000001.tar cannot be fetched")
    with gone as lost, data.films.lent(items[3].film):
        pass
    with data.films.lent(items[0].film):
        pass
    assert SECRET not in str(lost.value) + caplog.text


def test_a_bucket_that_may_not_be_read_says_so(tmp_path, bucket):
    from mmavlm.core.errors import DataError

    _, name, options = bucket
    with pytest.raises(DataError, match=r"s3://none-of-ours"):
        module_of(tmp_path, f"s3://none-of-ours-{name}"[:60], options).items("train")
