import multiprocessing as mp
import shutil
import threading

import fsspec
import pytest

from mmavlm.core.errors import ConfigError
from mmavlm.core.medium import Medium
from mmavlm.data.shards.fetching import LostShardError, Patience
from mmavlm.data.shards.places import Place
from mmavlm.data.shards.store import ShardStore
from mmavlm.data.shards.tables import Columns
from shard_sets import seconds_of, served, write_tar

FILM = b"film" * 5000
COLUMNS = Columns()


@pytest.fixture
def tar(tmp_path):
    members = {"a.mp4": FILM, "a.json": b'{"caption": "a cat"}'}
    return write_tar(tmp_path / "there/x.tar", members)


@pytest.fixture
def quick(monkeypatch):
    """Waits between tries that a test can afford."""
    monkeypatch.setattr("mmavlm.data.shards.fetching.FIRST_WAIT_S", 0.01)


def store_of(tmp_path, **settings):
    store = ShardStore(tmp_path / "cache", **{"gb": 1, "fetch_s": 20, **settings})
    store.folder("")
    return store


def looked(store, address):
    shard = store.look(Place(address), None, COLUMNS)
    assert not isinstance(shard, LostShardError), shard
    return Medium(medium_id="a", source=store.root / shard.folder / "a.mp4")


def read(store, film):
    with store.lent(film):
        return film.source.read_bytes()


@pytest.mark.parametrize("scheme", ["", "file://", "memory:/"])
def test_a_film_is_there_while_it_is_lent(tmp_path, tar, scheme):
    if scheme == "memory:/":
        with fsspec.open(f"{scheme}{tar}", "wb") as file:
            file.write(tar.read_bytes())
    store = store_of(tmp_path)
    film = looked(store, f"{scheme}{tar}")
    assert not film.source.exists()
    assert read(store, film) == FILM


def test_a_film_elsewhere_is_lent_as_it_is(tmp_path, tar):
    with store_of(tmp_path).lent(Medium(medium_id="x", source=tar)):
        pass


def test_a_shard_is_fetched_once_and_again_when_it_has_given_way(tmp_path, tar):
    with served(tar.parent) as server:
        store = store_of(tmp_path)
        film = looked(store, f"{server.address}/x.tar")
        asked = server.asked["x.tar"]
        assert read(store, film) == read(store, film) == FILM
        assert server.asked["x.tar"] == asked + 1
        shutil.rmtree(film.source.parent)
        assert read(store, film) == FILM
        assert server.asked["x.tar"] == asked + 2


def _read_by(store, film, came):
    came.put(read(store, film) == FILM)


def test_processes_that_want_a_shard_at_once_fetch_it_once(tmp_path, tar):
    with served(tar.parent) as server:
        store = store_of(tmp_path)
        film = looked(store, f"{server.address}/x.tar")
        asked = server.asked["x.tar"]
        context = mp.get_context("fork")
        came = context.Queue()
        readers = [context.Process(target=_read_by, args=(store, film, came)) for _ in range(5)]
        for reader in readers:
            reader.start()
        assert all(came.get(timeout=30) for _ in readers)
        for reader in readers:
            reader.join()
        assert server.asked["x.tar"] == asked + 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "faults", [[500], [503, 500, "half"], ["half", "half"], [429, "half", 500]]
)
def test_a_server_that_fails_for_a_while_is_asked_again(tmp_path, tar, faults):
    with served(tar.parent) as server:
        store = store_of(tmp_path)
        film = looked(store, f"{server.address}/x.tar")
        server.faults["x.tar"] = list(faults)
        assert read(store, film) == FILM


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("fault", "said"),
    [(500, "500"), ("half", "x.tar cannot be fetched"), (404, "404|x.tar"), (403, "403")],
)
def test_a_shard_that_cannot_be_had_is_named_and_not_tried_for_ever(tmp_path, tar, fault, said):
    with served(tar.parent) as server:
        store = store_of(tmp_path, tries=3)
        film = looked(store, f"{server.address}/x.tar")
        server.always("x.tar", fault)
        asked = server.asked["x.tar"]
        with pytest.raises(LostShardError, match=said) as lost:
            read(store, film)
        assert f"{server.address}/x.tar" in str(lost.value)
        tries = server.asked["x.tar"] - asked
        assert tries == (1 if fault in (404, 403) else 3)
        with pytest.raises(LostShardError, match=said):  # and not asked again by anybody
            read(store_of(tmp_path), film)
        assert server.asked["x.tar"] - asked == tries
        assert not list(store.root.glob("*/a.mp4"))
        assert store.room.used_bytes() == 0


@pytest.mark.parametrize("fault", ["hang", "slow"])
def test_a_server_that_is_too_slow_is_given_up_in_time(tmp_path, tar, fault):
    with served(tar.parent) as server:
        store = store_of(tmp_path, fetch_s=1.5, tries=2)
        film = looked(store, f"{server.address}/x.tar")
        server.always("x.tar", fault)
        seconds, raised = seconds_of(lambda: read(store, film))
        assert isinstance(raised, LostShardError)
        assert "x.tar cannot be fetched" in str(raised)
        assert seconds < 4


def test_a_slow_try_leaves_time_for_none_and_the_cache_stays_clean(tmp_path, tar):
    with served(tar.parent) as server:
        store = store_of(tmp_path, fetch_s=1)
        film = looked(store, f"{server.address}/x.tar")
        server.faults["x.tar"] = ["slow"]
        _, raised = seconds_of(lambda: read(store, film))
        assert "nothing came within 1 s" in str(raised)
        server.ended.set()  # what was left alone ends by itself
        for thread in threading.enumerate():
            if thread.name.endswith("(take)"):
                thread.join(10)
        assert not list(store.root.glob("*.partial/.fetched/*"))


@pytest.mark.usefixtures("quick")
def test_another_size_than_the_one_that_was_told_is_no_whole_shard(tmp_path, tar):
    store = store_of(tmp_path, tries=1)
    with fsspec.open("memory://sized/x.tar", "wb") as file:
        file.write(tar.read_bytes())
    film = looked(store, "memory://sized/x.tar")
    with fsspec.open("memory://sized/x.tar", "wb") as file:
        file.write(tar.read_bytes() + bytes(10240))
    with pytest.raises(LostShardError, match="bytes came of"):
        read(store, film)


def test_a_shard_that_changes_has_another_folder(tmp_path, tar):
    store = store_of(tmp_path)
    before = looked(store, str(tar))
    read(store, before)
    write_tar(tar, {"a.mp4": b"another film", "a.json": b'{"caption": "a dog"}'})
    after = looked(store, str(tar))
    assert after.source != before.source
    assert read(store, after) == b"another film"


def test_the_cache_never_takes_more_than_it_may(tmp_path):
    for number in range(8):
        write_tar(tmp_path / f"there/{number}.tar", {"a.mp4": bytes(20_000), "a.txt": b"said"})
    store = store_of(tmp_path, gb=1e-4)  # room for two, and to unpack one
    films = [looked(store, f"{tmp_path}/there/{number}.tar") for number in range(8)]
    for film in films + films[::-1]:
        assert read(store, film) == bytes(20_000)
        taken = sum(p.stat().st_size for p in store.root.rglob("*.mp4"))
        assert taken == store.room.used_bytes() <= 100_000


def test_a_shard_larger_than_the_cache_is_a_mistake_of_the_settings(tmp_path, tar):
    store = store_of(tmp_path, gb=1e-5)
    with pytest.raises(ConfigError, match=r"raise data.reader.store.gb"):
        read(store, looked(store, str(tar)))


def test_a_disk_without_room_ends_a_run_and_marks_no_shard(tmp_path, tar, monkeypatch):
    store = store_of(tmp_path)
    film = looked(store, str(tar))

    def full(*_):
        raise OSError(28, "No space left on device", "disk")

    with monkeypatch.context() as patch:
        patch.setattr("mmavlm.data.shards.store.unpack", full)
        with pytest.raises(OSError, match="No space left"):
            read(store, film)
    assert read(store, film) == FILM


def test_a_film_of_which_nothing_tells_is_lost_by_name(tmp_path):
    store = store_of(tmp_path)
    film = Medium(medium_id="a", source=store.root / "unknown-0123/a.mp4")
    with pytest.raises(LostShardError, match=r"nothing in .* tells of the shard unknown-0123"):
        read(store, film)


def test_waits_double_and_stay_within_the_time():
    waited, place = [], Place("memory://none/x.tar")
    patience = Patience(tries=6, seconds=30)

    def fail(one):
        raise OSError("broken pipe")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmavlm.data.shards.fetching.time.sleep", waited.append)
        patch.setattr("mmavlm.data.shards.fetching.CHANCE.uniform", lambda a, b: 1)
        with pytest.raises(LostShardError, match=r"broken pipe \(tries: 6"):
            patience.try_to("read", place, fail)
    assert waited == [0.25, 0.5, 1, 2, 4]


@pytest.mark.usefixtures("quick")
def test_a_film_may_be_fetched_before_it_is_lent_and_what_fails_is_told_then(tmp_path, tar):
    with served(tar.parent) as server:
        store = store_of(tmp_path, tries=2)
        film = looked(store, f"{server.address}/x.tar")
        asked = server.asked["x.tar"]
        store.fetch(film)
        assert film.source.read_bytes() == read(store, film) == FILM
        assert server.asked["x.tar"] == asked + 1
        shutil.rmtree(film.source.parent)
        server.always("x.tar", 500)
        store.fetch(film)
        with pytest.raises(LostShardError, match=r"x.tar cannot be fetched"):
            read(store, film)
