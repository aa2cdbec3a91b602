import multiprocessing as mp
import os
import time

import pytest

from mmavlm.core.errors import ConfigError
from mmavlm.data.shards.room import Room


def fill(room, name, size):
    with room.making(name):
        partial = room.reserved(name, size)
        (partial / "film").write_bytes(b"x" * size)
        room.put(name, partial, size)


def there(room):
    return {name for name in "abcdef" if room.has(name)}


def test_the_longest_unused_gives_way(tmp_path):
    room = Room(tmp_path, 300, wait_s=1)
    for at, name in enumerate("abc"):
        fill(room, name, 100)
        os.utime(room.path(name) / ".bytes", (at, at))
    with room.reading("a") as is_there:
        assert is_there
    fill(room, "d", 100)
    assert there(room) == {"a", "c", "d"}
    assert room.used_bytes() == 300


def test_what_is_read_does_not_give_way(tmp_path):
    room = Room(tmp_path, 200, wait_s=0.3)
    fill(room, "a", 100)
    fill(room, "b", 100)
    with room.reading("a"):
        fill(room, "c", 100)
        assert there(room) == {"a", "c"}
        with room.reading("c"), pytest.raises(ConfigError, match=r"raise data.reader.store.gb"):
            fill(room, "d", 100)
    fill(room, "d", 100)
    assert "d" in there(room)


def test_what_can_never_have_room_is_refused_at_once(tmp_path):
    room = Room(tmp_path, 200, wait_s=60)
    begun = time.monotonic()
    with pytest.raises(ConfigError, match="201 bytes, for a shard"):
        fill(room, "a", 201)
    assert time.monotonic() - begun < 5


def test_what_is_being_filled_counts(tmp_path):
    room = Room(tmp_path, 250, wait_s=0.1)
    with room.making("a"):
        room.reserved("a", 200)
        with pytest.raises(ConfigError):
            fill(room, "b", 100)
        fill(room, "c", 50)


def _die_filling(folder):
    room = Room(folder, 250, wait_s=1)
    with room.making("a"):
        room.reserved("a", 200)
        os._exit(1)


def test_what_a_killed_process_left_gives_way(tmp_path):
    process = mp.get_context("fork").Process(target=_die_filling, args=(tmp_path,))
    process.start()
    process.join()
    assert list(tmp_path.glob("a.*.partial"))
    fill(Room(tmp_path, 250, wait_s=0.1), "b", 200)
    assert not list(tmp_path.glob("a.*.partial"))


def _make_once(folder, made):
    room = Room(folder, 10**6, wait_s=10)
    with room.making("a"):
        if not room.has("a"):
            with made.get_lock():
                made.value += 1
            partial = room.reserved("a", 10)
            time.sleep(0.05)
            room.put("a", partial, 10)


def test_of_many_processes_one_makes_a_folder(tmp_path):
    context = mp.get_context("fork")
    made = context.Value("i", 0)
    processes = [context.Process(target=_make_once, args=(tmp_path, made)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert made.value == 1


def test_a_process_forked_while_a_lock_is_held_does_not_keep_it(tmp_path):
    room = Room(tmp_path, 1000, wait_s=0.5)
    fill(room, "a", 10)
    with room.reading("a"):
        process = mp.get_context("fork").Process(target=time.sleep, args=(30,))
        process.start()
    try:
        with room.making("a"):
            pass
    finally:
        process.kill()
        process.join()


def test_a_folder_without_its_mark_is_not_there(tmp_path):
    room = Room(tmp_path, 1000, wait_s=1)
    room.path("a").mkdir()
    (room.path("a") / "half").write_bytes(b"")
    with room.reading("a") as is_there:
        assert not is_there
    fill(room, "a", 10)
    assert [p.name for p in room.path("a").iterdir() if p.name[0] != "."] == ["film"]
