"""A feature cache of many entries: listed at once, packed into few files, rid of what is unused."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.core.medium import Medium
from mmavlm.data import fill_cache
from mmavlm.data.cache_keys import key_numbers, listed_keys
from mmavlm.data.cache_upkeep import Pruning, pack_entries
from mmavlm.data.cache_uses import note_use, uses
from mmavlm.data.encoder_cards import EncoderCard, note_card
from mmavlm.data.feature_cache import FeatureCache
from mmavlm.data.fill_cache import CacheFiller
from mmavlm.data.film_entries import FilmFrames, FilmPlan, Sampling

FRAMES, TOKENS, WIDTH = 3, 2, 4
CARD = EncoderCard(32, TOKENS, WIDTH, "tiny")


def media(count, start=0):
    return [Medium(medium_id=f"film {n}", source=Path(f"/none/{n}.mp4"))
            for n in range(start, start + count)]  # fmt: skip


def entries_of(count, start=0):
    return FilmPlan(media(count, start), Sampling(FRAMES, 10.0)).entries


def features_of(entry):
    generator = torch.Generator().manual_seed(int(entry.key[:8], 16))
    return torch.randn(FRAMES, TOKENS, WIDTH, generator=generator)


def write(cache, entries):
    rows = torch.arange(FRAMES, dtype=torch.int32)[None]
    film = FilmFrames(torch.empty(0), torch.arange(FRAMES) / 10, rows)
    for entry in entries:
        cache.write(entry, film, features_of(entry))


@pytest.fixture
def cache(tmp_path):
    """A cache of forty entries."""
    note_card(tmp_path, {"encoder": "tiny"}, CARD)
    cache = FeatureCache(tmp_path, CARD)
    write(cache, entries_of(40))
    return cache


def assert_whole(cache, entries):
    fresh = FeatureCache(cache.root, cache.card)
    for entry in entries:
        assert fresh.problem(entry) is None
        features, times_s = fresh.read(entry, 0)
        assert torch.equal(features, features_of(entry).half())
        assert times_s.tolist() == pytest.approx([0, 0.1, 0.2])


@pytest.mark.parametrize("packed", [0, 25, 40])
def test_what_is_listed_is_what_opening_each_entry_finds(cache, packed):
    entries = entries_of(50)
    if packed:
        shutil.copytree(cache.folder, cache.root / "loose")
        for entry in entries[packed:40]:
            cache.path(entry).unlink()
        pack_entries(cache)
        shutil.copytree(cache.root / "loose", cache.folder, dirs_exist_ok=True)
        for entry in entries[:packed]:
            cache.path(entry).unlink()
    found = FeatureCache(cache.root, cache.card).present(entries)
    assert found.tolist() == [cache.problem(entry) is None for entry in entries]
    assert found.sum() == 40


def test_of_many_entries_only_those_that_are_missing_are_looked_at(cache, monkeypatch):
    monkeypatch.setattr(fill_cache, "OPENED", 10)
    opened, problem = [], FeatureCache.problem
    monkeypatch.setattr(
        FeatureCache, "problem", lambda self, entry: opened.append(entry) or problem(self, entry)
    )
    entries = entries_of(43)
    cache.path(entries[3]).write_bytes(b"damaged")
    filler = CacheFiller(cache, entries)
    assert opened == filler.missing == entries[40:]
    with pytest.raises(VideoError, match="features of film 3"):
        cache.read(entries[3], 0)
    assert entries[3] in CacheFiller(cache, entries, verify=True).missing


def test_a_folder_that_is_not_there_or_holds_other_things_has_no_entries(tmp_path):
    assert listed_keys(tmp_path / "none") == []
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab/.abc.safetensors.partial").touch()
    (tmp_path / "ab/notes.txt").touch()
    (tmp_path / "encoder.json").touch()
    assert listed_keys(tmp_path) == []


@pytest.mark.parametrize("pack_bytes", [1, 2000, 2**30])
def test_packed_entries_are_read_as_they_were_written(cache, pack_bytes):
    held = FeatureCache(cache.root, cache.card)
    entries = entries_of(40)
    held.read(entries[0], 0)
    moved = pack_entries(cache, pack_bytes)
    assert moved.entries == 40
    assert listed_keys(cache.folder) == []
    packs = len(list(cache.folder.glob("packs/*.pack")))
    assert packs == {1: 40, 2**30: 1}.get(pack_bytes, packs)
    assert pack_bytes != 2000 or 4 < packs < 40
    assert_whole(cache, entries)
    # one that was opened before finds them, too
    assert torch.equal(held.read(entries[5], 0)[0], features_of(entries[5]).half())
    assert not CacheFiller(held, entries).missing


def test_an_entry_that_is_computed_anew_counts_before_the_one_in_a_pack(cache):
    pack_entries(cache)
    entry = entries_of(1)[0]
    (pack,) = cache.folder.glob("packs/*.pack")
    content = bytearray(pack.read_bytes())
    part = cache.packs.part(entry.key)
    content[part.offset + part.size - 1] ^= 1
    pack.write_bytes(content)
    fresh = FeatureCache(cache.root, cache.card)
    with pytest.raises(VideoError, match=r"\.pack, features of film 0: the checksum of a frame"):
        fresh.read(entry, 0)
    write(cache, [entry])
    assert_whole(cache, [entry])
    pack_entries(cache)
    assert_whole(cache, entries_of(40))


def test_a_damaged_entry_stays_where_it_is(cache, caplog):
    entry = entries_of(40)[7]
    content = bytearray(cache.path(entry).read_bytes())
    content[-1] ^= 1
    cache.path(entry).write_bytes(content)
    assert pack_entries(cache).entries == 39
    assert listed_keys(cache.folder) == [entry.key]
    assert "damaged entry, not packed" in caplog.text


@pytest.mark.parametrize("cut", ["index", "pack"])
def test_a_pack_whose_files_are_damaged_is_told_and_its_entries_are_missing(cache, caplog, cut):
    pack_entries(cache)
    (path,) = cache.folder.glob(f"packs/*.{cut}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    fresh = FeatureCache(cache.root, cache.card)
    problems = {fresh.problem(entry) for entry in entries_of(40)}
    if cut == "index":
        assert problems == {"missing"}
        assert "its entries count as missing" in caplog.text
    else:
        assert any("is shorter than its index says" in (problem or "") for problem in problems)


def test_a_pack_without_an_index_counts_for_nothing(cache):
    entries = entries_of(40)
    for path in cache.folder.glob("*/*.safetensors"):
        assert path.exists()
    (cache.folder / "packs").mkdir()
    (cache.folder / "packs/0_left.pack").write_bytes(b"half")
    assert_whole(cache, entries)
    assert pack_entries(cache).entries == 40


def numbers(entries):
    return key_numbers(entry.key for entry in entries)


def left(cache):
    keys = [*listed_keys(cache.folder)]
    for pack in cache.packs.paths:
        keys += cache.packs.parts_of(pack)[0]
    return sorted(keys)


@pytest.fixture
def noted(tmp_path):
    """A cache of which 25 entries are needed, by two runs."""
    note_card(tmp_path, {"encoder": "tiny"}, CARD)
    cache = FeatureCache(tmp_path, CARD)
    note_use(cache.folder, numbers(entries_of(20)), "one")
    note_use(cache.folder, numbers(entries_of(15, 10)), "two")
    write(cache, entries_of(40))
    return cache


@pytest.mark.parametrize("packed", [False, True])
def test_only_what_no_run_needs_is_removed_and_first_it_is_listed(noted, packed):
    if packed:
        pack_entries(noted, 3000)
    before = left(noted)
    (listed,) = Pruning(noted.root).run()
    assert left(noted) == before
    assert (listed.kept.entries, listed.unused.entries, listed.before.entries) == (25, 15, 0)
    assert listed.unused.bytes > 0
    assert sorted(listed.needed_by) == ["one", "two"]
    (removed,) = Pruning(noted.root).run(remove=True)
    assert removed.unused == listed.unused
    assert left(noted) == sorted(entry.key for entry in entries_of(25))
    assert_whole(noted, entries_of(25))
    (again,) = Pruning(noted.root).run(remove=True)
    assert again.unused.entries == 0


def test_entries_from_before_any_run_noted_what_it_needs_are_not_removed_unasked(cache):
    hour_ago = time.time() - 3600
    for path in cache.folder.glob("*/*.safetensors"):
        os.utime(path, (hour_ago, hour_ago))
    assert Pruning(cache.root).run(remove=True)[0].before.entries == 40
    note_use(cache.folder, numbers(entries_of(10)), "one")
    write(cache, entries_of(5, 40))
    (found,) = Pruning(cache.root).run(remove=True)
    assert (found.kept.entries, found.unused.entries, found.before.entries) == (10, 5, 30)
    assert len(left(cache)) == 40
    Pruning(cache.root, also_before=True).run(remove=True)
    assert left(cache) == sorted(entry.key for entry in entries_of(10))


def test_what_runs_needed_long_ago_may_be_let_go(noted):
    two = next(p for p in noted.folder.glob("uses/*.use") if b'"two"' in p.read_bytes())
    week_ago = time.time() - 7 * 86400
    os.utime(two, (week_ago, week_ago))
    assert Pruning(noted.root, keep_days=8).run()[0].unused.entries == 15
    assert Pruning(noted.root, keep_days=6).run()[0].unused.entries == 20


def test_runs_that_need_the_same_share_a_note_that_stays_as_it_is(noted):
    (note, _), stats = uses(noted.folder), {p: p.stat() for p in noted.folder.glob("uses/*")}
    note_use(noted.folder, numbers(entries_of(20)[::-1]), "three")
    note_use(noted.folder, numbers(entries_of(5)), "four")
    assert {p: p.stat() for p in noted.folder.glob("uses/*")} == stats
    assert np.isin(note.numbers, numbers(entries_of(40))).all()


def test_nothing_is_removed_where_a_note_is_damaged(noted):
    path = next(noted.folder.glob("uses/*.use"))
    path.write_bytes(path.read_bytes()[:-3])
    before = left(noted)
    with pytest.raises(ConfigError, match="which says what entries a run needs, is damaged"):
        Pruning(noted.root).run(remove=True)
    assert left(noted) == before
