"""What the feature cache holds is what the encoder gives, whatever happens to its files."""

import json
import logging
import math
import multiprocessing
import os
import pickle
import signal
import time
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.core.items import Item
from mmavlm.core.medium import FrameGrid
from mmavlm.data import fill_cache
from mmavlm.data.collate import collate
from mmavlm.data.dataset import BrokenItem, VideoDataset
from mmavlm.data.encoder_cards import EncoderCard, find_card, note_card, write_whole
from mmavlm.data.feature_cache import MISSING, CachedFilms, FeatureCache
from mmavlm.data.fill_cache import CacheFiller
from mmavlm.data.film_entries import MAX_FRAMES, FilmPlan, Sampling
from mmavlm.model.encoders import TinyEncoder

FRAMES, FPS = 6, 10.0


def item(source, name="q", **settings):
    common = {"prompt": "what?", "target": "that", "task": "open", "video_id": source.stem}
    return Item.question(item_id=name, source=source, **{**common, **settings})


def window(source, start_s, grid_frames, length_s=1.0):
    end_s = start_s + length_s
    grid = FrameGrid(grid_frames, "windows")
    return item(source, f"{start_s}", start_s=start_s, end_s=end_s, grid=grid)


def plan_of(*items, num_frames=FRAMES):
    return FilmPlan([item.film for item in items], Sampling(num_frames, FPS))


def tiny_encoder():
    return TinyEncoder(image_size=32, patch_size=8, width=16)


def cache_in(folder):
    return FeatureCache(folder, EncoderCard.of(tiny_encoder()))


def fill(cache, plan, encode=None, **settings):
    broken = []
    filler = CacheFiller(cache, plan.entries)
    written = filler.fill(encode or tiny_encoder(), broken.extend, **settings)
    return written, broken


def filled(folder, *items):
    """A cache that holds the items' only entry, that entry, and its file."""
    cache, plan = cache_in(folder), plan_of(*items)
    fill(cache, plan)
    (entry,) = plan.entries
    return cache, entry, cache.path(entry)


def both_datasets(cache, items):
    settings = {"num_frames": FRAMES, "image_size": 32}
    cached = CachedFilms(cache, plan_of(*items))
    return VideoDataset(items, **settings), VideoDataset(items, **settings, features=cached)


@pytest.mark.parametrize("workers", [0, 2])
def test_cached_features_are_those_of_the_frames_evaluation_takes(tmp_path, make_clip, workers):
    long, short = make_clip("long.mp4", 40), make_clip("short.mp4", 3)
    items = [
        item(long, "whole"),
        item(long, "part", start_s=1.0, end_s=2.5),
        window(long, 0.0, 40),
        window(long, 0.5, 40),
        item(short, "short"),
    ]
    cache = cache_in(tmp_path / "cache")
    assert fill(cache, plan_of(*items), num_workers=workers) == (2, [])
    pictures, features = both_datasets(cache, items)
    for seen, held in zip(pictures, features, strict=True):
        (shown,), (kept,) = seen.films, held.films
        expected = tiny_encoder()(shown.frames)
        assert kept.frames.dtype == torch.float16
        torch.testing.assert_close(kept.frames.float(), expected, atol=1e-3, rtol=1e-3)
        assert torch.equal(kept.timestamps_s, shown.timestamps_s)


def test_frames_at_a_rate_are_cached_as_evaluation_takes_them(tmp_path, make_clip):
    path = make_clip(frames=30)
    items = [item(path), item(path, "part", start_s=1.0, end_s=2.2), item(make_clip("b.mp4", 3))]
    plan = FilmPlan([one.film for one in items], Sampling(5, FPS, 2.0))
    cache = cache_in(tmp_path / "cache")
    assert fill(cache, plan) == (2, [])
    settings = {"num_frames": 5, "image_size": 32, "sample_fps": 2.0}
    cached = VideoDataset(items, **settings, features=CachedFilms(cache, plan))
    for seen, found in zip(VideoDataset(items, **settings), cached, strict=True):
        assert torch.equal(seen.films[0].timestamps_s, found.films[0].timestamps_s)
    assert [len(sample.films[0].frames) for sample in cached] == [5, 2, 1]
    assert not {e.key for e in plan.entries} & {e.key for e in plan_of(*items).entries}


def test_a_batch_of_features_is_padded_and_masked_like_one_of_frames(tmp_path, make_clip):
    items = [item(make_clip("a.mp4", 30), "a"), item(make_clip("b.mp4", 4), "b")]
    cache = cache_in(tmp_path / "cache")
    fill(cache, plan_of(*items))
    frames, features = (collate(list(data)) for data in both_datasets(cache, items))
    assert frames.features is None
    assert features.frames is None
    assert features.features.shape == (2, FRAMES, 16, 16)
    assert torch.equal(features.frame_mask, frames.frame_mask)
    assert torch.equal(features.timestamps_s, frames.timestamps_s)
    assert not features.features[1, 4:].any()


def test_windows_that_overlap_share_a_file_that_holds_each_frame_once(tmp_path, make_clip):
    film = make_clip(frames=40)
    cache, entry, path = filled(tmp_path / "cache", *(window(film, k / 2, 40) for k in range(5)))
    with safe_open(path, framework="pt") as file:
        times_s = file.get_tensor("times_s")
    assert len(times_s) == len(times_s.unique()) == entry.most_frames < 5 * FRAMES
    assert path.stat().st_size < entry.most_frames * cache.card.frame_bytes + 4096


def test_items_with_the_same_frames_share_an_entry_and_a_row(make_clip):
    film = make_clip(frames=30)
    whole, again, part = item(film, "a"), item(film, "b"), item(film, "c", start_s=1.0)
    plan = plan_of(whole, again, part)
    assert len(plan.entries) == 1
    assert plan.place(whole.film) == plan.place(again.film)
    assert plan.place(whole.film)[1] != plan.place(part.film)[1]


def test_a_long_film_is_cut_into_files_a_process_can_hold(tmp_path):
    film = tmp_path / "long.mp4"
    film.touch()
    windows = [window(film, 20.0 * k, 10**6, length_s=99.0) for k in range(300)]
    plan = plan_of(*windows, num_frames=100)
    assert len(plan.entries) > 1
    assert all(entry.most_frames <= MAX_FRAMES for entry in plan.entries)
    assert sum(entry.most_frames for entry in plan.entries) < 300 * 100 / 3
    for w in windows:
        entry, row = plan.place(w.film)
        assert entry.stretches[row] == w.film


def test_frames_of_another_way_to_decode_are_encoded_again(tmp_path, make_clip, monkeypatch):
    film = make_clip("a.mp4", 20)
    cache, _, _ = filled(tmp_path / "cache", item(film))
    monkeypatch.setattr("mmavlm.data.film_entries.DECODING_VERSION", 1)
    assert len(CacheFiller(cache, plan_of(item(film)).entries).missing) == 1


def test_a_film_that_changes_is_encoded_anew(tmp_path, make_clip):
    film = make_clip("a.mp4", 20)
    cache, _, _ = filled(tmp_path / "cache", item(film))
    assert not CacheFiller(cache, plan_of(item(film)).entries).missing
    make_clip("a.mp4", 25)
    assert len(CacheFiller(cache, plan_of(item(film)).entries).missing) == 1


def test_an_extracted_picture_that_changes_is_noticed(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for k in (1, 2):
        (folder / f"frame{k:06d}.jpg").write_bytes(b"x")
    (before,) = plan_of(item(folder)).entries
    (same,) = plan_of(item(folder)).entries
    os.utime(folder / "frame000002.jpg", ns=(0, time.time_ns() + 10**9))
    (after,) = plan_of(item(folder)).entries
    assert before.key == same.key != after.key


def test_other_frames_another_encoder_and_another_film_have_entries_of_their_own(
    tmp_path, make_clip
):
    film, other = make_clip("a.mp4", 20), make_clip("b.mp4", 20)
    plans = [
        plan_of(item(film)),
        plan_of(item(film), num_frames=5),
        plan_of(item(film, start_s=0.5)),
        plan_of(window(film, 0.0, 20)),
        plan_of(item(other)),
    ]
    assert len({plan.entries[0].key for plan in plans}) == len(plans)
    seeds = [FeatureCache(tmp_path, EncoderCard.of(TinyEncoder(32, 8, seed=s))) for s in (0, 1)]
    assert seeds[0].path(plans[0].entries[0]) != seeds[1].path(plans[0].entries[0])


@pytest.mark.parametrize("name", ["../../../out", "/etc/passwd", "a/../../b", "x" * 5000, "\0"])
def test_names_of_an_annotation_do_not_lead_out_of_the_cache(tmp_path, make_clip, name):
    cache = cache_in(tmp_path / "cache")
    plan = plan_of(item(make_clip(frames=10), video_id=name))
    assert fill(cache, plan) == (1, [])
    path = cache.path(plan.entries[0]).resolve()
    assert path.is_relative_to((tmp_path / "cache").resolve())
    assert path.is_file()


def truncated(path):
    path.write_bytes(path.read_bytes()[:-7])


def emptied(path):
    path.write_bytes(b"")


def pickled(path):
    path.write_bytes(pickle.dumps({"features": np.zeros(3)}))


def with_a_header_of_petabytes(path):
    path.write_bytes((2**50).to_bytes(8, "little") + path.read_bytes()[8:])


def with_tensors_beyond_its_end(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["features"]["shape"][0] = 10**9
    told = json.dumps(header).encode()
    path.write_bytes(len(told).to_bytes(8, "little") + told + content[8 + length :])


def with_other_times(path):
    rewritten(path, times_s=torch.arange(6, dtype=torch.float32))


def without_the_checksums_it_promises(path):
    with safe_open(path, framework="pt") as file:
        told, tensors = (
            file.metadata(),
            {n: file.get_tensor(n) for n in ("features", "times_s", "rows")},
        )
    save_file(tensors, path, told)


def of_another_film(path):
    rewritten(path, metadata={"key": "0" * 64})


def of_another_encoder(path):
    rewritten(path, metadata={"fingerprint": "other"})


def of_another_width(path):
    rewritten(path, features=torch.zeros(6, 16, 8, dtype=torch.float16))


def with_rows_it_does_not_have(path):
    rewritten(path, rows=torch.full((1, FRAMES), 10**6, dtype=torch.int32))


def with_a_folder_in_its_place(path):
    path.unlink()
    path.mkdir()


def rewritten(path, metadata=None, **changes):
    with safe_open(path, framework="pt") as file:
        told, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    copy = path.with_suffix(".copy")
    save_file({**tensors, **changes}, copy, {**told, **(metadata or {})})
    copy.replace(path)


DAMAGES = [
    truncated, emptied, pickled, with_a_header_of_petabytes, with_tensors_beyond_its_end,
    of_another_film, of_another_encoder, of_another_width, with_rows_it_does_not_have,
    with_other_times, without_the_checksums_it_promises,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_or_foreign_entry_is_named_and_computed_anew(tmp_path, make_clip, caplog, damage):
    film = make_clip(frames=20)
    cache, entry, path = filled(tmp_path / "cache", item(film))
    good = cache.read(entry, 0)
    damage(path)
    with pytest.raises(VideoError, match=path.name):
        cache.read(entry, 0)
    with caplog.at_level(logging.WARNING):
        assert fill(cache, plan_of(item(film))) == (1, [])
    assert "damaged entry, to be computed anew" in caplog.text
    assert path.name in caplog.text
    assert all(map(torch.equal, cache.read(entry, 0), good))


def test_a_frame_that_was_damaged_breaks_the_items_that_show_it_and_no_other(tmp_path, make_clip):
    film = make_clip(frames=40)
    early, late = item(film, "early", end_s=1.0), item(film, "late", start_s=3.0)
    cache, plan = cache_in(tmp_path / "cache"), plan_of(early, late)
    fill(cache, plan)
    path = cache.path(plan.entries[0])
    content = bytearray(path.read_bytes())
    last = content.rindex(bytes(cache.read(*plan.place(late.film))[0][-1].numpy()))
    content[last] ^= 1
    path.write_bytes(content)
    assert len(cache.read(*plan.place(early.film))[0]) == FRAMES
    with pytest.raises(VideoError, match=r"the checksum of a frame is another; remove the file"):
        cache.read(*plan.place(late.film))
    path.unlink()
    assert fill(cache, plan) == (1, [])
    assert len(cache.read(*plan.place(late.film))[0]) == FRAMES


def test_entries_of_an_earlier_version_are_read_and_that_is_said_once(tmp_path, make_clip, caplog):
    film = make_clip(frames=20)
    cache, entry, path = filled(tmp_path / "cache", item(film))
    features, _ = cache.read(entry, 0)
    with safe_open(path, framework="pt") as file:
        told, tensors = (
            file.metadata(),
            {n: file.get_tensor(n) for n in ("features", "times_s", "rows")},
        )
    del told["crc32"]
    save_file(tensors, path, {**told, "format": "mmavlm features 1"})
    with caplog.at_level(logging.INFO):
        assert torch.equal(cache.read(entry, 0)[0], features)
        assert cache.problem(entry) is None
    assert caplog.text.count("has no checksums") == 1


def test_a_folder_in_an_entrys_place_is_told_not_removed(tmp_path, make_clip):
    film = make_clip(frames=20)
    cache, _, path = filled(tmp_path / "cache", item(film))
    with_a_folder_in_its_place(path)
    with pytest.raises(ConfigError, match="cannot be written"):
        fill(cache, plan_of(item(film)))


def test_an_entry_that_vanishes_or_breaks_while_training_is_a_broken_item(tmp_path, make_clip):
    items = [item(make_clip("a.mp4", 20), "a"), item(make_clip("b.mp4", 20), "b")]
    cache, plan = cache_in(tmp_path / "cache"), plan_of(*items)
    fill(cache, plan)
    cache.path(plan.entries[0]).unlink()
    truncated(cache.path(plan.entries[1]))
    _, data = both_datasets(cache, items)
    gone, cut = data
    assert isinstance(gone, BrokenItem)
    assert "is gone from data.cache; run `python -m mmavlm.cache`" in gone.reason
    assert isinstance(cut, BrokenItem)
    assert "features of b: " in cut.reason
    batch = collate([gone, cut])
    assert (len(batch), batch.frames, batch.features) == (0, None, None)
    assert [entry.partition(": ")[0] for entry in batch.broken] == ["a", "b"]


def test_a_broken_film_is_told_and_the_others_are_kept(tmp_path, make_clip):
    good, bad = make_clip("good.mp4", 20), tmp_path / "bad.mp4"
    bad.touch()
    cache, plan = cache_in(tmp_path / "cache"), plan_of(item(good), item(bad))
    written, broken = fill(cache, plan)
    assert written == 1
    assert broken == [f"bad: {bad} is empty (0 bytes)"]
    assert [cache.problem(entry) for entry in plan.entries] == [None, MISSING]


def test_a_stretch_behind_the_end_breaks_its_item_and_no_other(tmp_path, make_clip):
    film = make_clip(frames=20)
    items = [item(film, "in"), item(film, "out", start_s=60.0)]
    cache = cache_in(tmp_path / "cache")
    written, (broken,) = fill(cache, plan_of(*items))
    assert written == 1
    assert "is asked about from 60 s on" in broken
    _, data = both_datasets(cache, items)
    assert not isinstance(data[0], BrokenItem)
    assert data[1].reason.startswith(f"item 'out': {film} gave no frames from 60 s on")


def test_what_is_kept_in_memory_are_the_features(tmp_path, make_clip):
    film = make_clip(frames=20)
    cache, _, path = filled(tmp_path / "cache", item(film))
    cached = CachedFilms(cache, plan_of(item(film)))
    data = VideoDataset(
        [item(film)], num_frames=FRAMES, image_size=32, features=cached, keep_frames=True
    )
    first = data[0].films[0].frames
    path.unlink()
    assert torch.equal(data[0].films[0].frames, first)


@pytest.mark.parametrize("augmentation", [{"crop": True}, {"flip": True}])
def test_random_crops_and_mirror_images_exclude_the_cache(tmp_path, make_clip, augmentation):
    film = make_clip(frames=20)
    cached = CachedFilms(cache_in(tmp_path), plan_of(item(film)))
    settings = {"num_frames": FRAMES, "image_size": 32, "crop": False, "flip": False}
    VideoDataset([item(film)], features=cached, train=True, **settings)
    with pytest.raises(ConfigError, match=r"set data\.crop=false data\.flip=false, or data\.cache"):
        VideoDataset([item(film)], features=cached, train=True, **{**settings, **augmentation})


def test_size_is_told_before_writing_and_is_not_exceeded(tmp_path, make_clip):
    items = [item(make_clip(f"{k}.mp4", 20 + k)) for k in range(4)]
    cache, plan = cache_in(tmp_path / "cache"), plan_of(*items)
    filler = CacheFiller(cache, plan.entries)
    assert "4 entries, 0 present, 4 missing: up to " in str(filler)
    assert not cache.root.exists()
    fill(cache, plan)
    assert sum(p.stat().st_size for p in cache.root.rglob("*.safetensors")) <= filler.needed_bytes
    assert str(CacheFiller(cache, plan.entries)).endswith("4 entries, 4 present")


def test_a_disk_that_is_short_is_refused(tmp_path, make_clip, monkeypatch):
    filler = CacheFiller(cache_in(tmp_path / "cache"), plan_of(item(make_clip())).entries)
    usage = namedtuple("usage", "total used free")
    for free, enough in ((filler.needed_bytes, True), (filler.needed_bytes - 1, False)):
        monkeypatch.setattr(fill_cache.shutil, "disk_usage", lambda _, f=free: usage(0, 0, f))
        if enough:
            filler.require_room()
        else:
            with pytest.raises(ConfigError, match=r"needs up to \d+ KiB more, \d+ KiB are free"):
                filler.require_room()


def test_a_disk_that_fills_up_leaves_no_part_of_an_entry(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\)"):
        write_whole(tmp_path / "a" / "b", b"x")
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("value", [1e6, math.inf, math.nan])
def test_features_that_float16_cannot_hold_are_refused(tmp_path, make_clip, value):
    def encode(frames):
        return torch.full((len(frames), 16, 16), value)

    with pytest.raises(ConfigError, match="beyond float16"):
        fill(cache_in(tmp_path / "cache"), plan_of(item(make_clip())), encode)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_only_what_killed_writers_left_long_ago_is_removed(tmp_path, make_clip):
    cache, _, path = filled(tmp_path / "cache", item(make_clip()))
    old, young = (path.with_name(f".{name}.partial") for name in ("old", "young"))
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    cache.sweep()
    assert not old.exists()
    assert young.exists()
    assert path.exists()


def test_what_is_there_is_not_encoded_again(tmp_path, make_clip):
    items = [item(make_clip(f"{k}.mp4", 20)) for k in range(3)]
    cache = cache_in(tmp_path / "cache")
    fill(cache, plan_of(*items[:2]))

    def encode(frames):
        seen.append(len(frames))
        return tiny_encoder()(frames)

    seen = []
    assert fill(cache, plan_of(*items), encode) == (1, [])
    assert seen == [FRAMES]


def test_filling_draws_nothing_from_the_runs_generator(tmp_path, make_clip):
    cache, encoder = cache_in(tmp_path / "cache"), tiny_encoder()
    before = torch.get_rng_state()
    fill(cache, plan_of(item(make_clip())), encoder, num_workers=1)
    assert torch.equal(torch.get_rng_state(), before)


def writer(folder, items, pause_s, kill_after, counts):
    torch.set_num_threads(1)
    encoder, encoded = tiny_encoder(), 0

    def encode(frames):
        nonlocal encoded
        if encoded == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(pause_s)
        encoded += 1
        return encoder(frames)

    counts.put(fill(cache_in(folder), plan_of(*items), encode)[0])


def run_writers(folder, items, *, count=1, kill_after=None):
    """Fork writers, and give how many entries each says it wrote."""
    context = multiprocessing.get_context("fork")
    counts = context.SimpleQueue()
    arguments = (folder, items, 0.02, kill_after, counts)
    writers = [context.Process(target=writer, args=arguments) for _ in range(count)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(120)
    return [] if kill_after is not None else [counts.get() for _ in writers]


def test_several_writers_share_the_work_and_break_nothing(tmp_path, make_clip):
    items = [item(make_clip(f"{k}.mp4", 8)) for k in range(24)]
    wrote = run_writers(tmp_path / "cache", items, count=3)
    cache, plan = cache_in(tmp_path / "cache"), plan_of(*items)
    assert [cache.problem(entry) for entry in plan.entries] == [None] * 24
    assert 24 <= sum(wrote) < 2 * 24
    assert all(wrote)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_killed_writer_is_gone_on_with(tmp_path, make_clip):
    items = [item(make_clip(f"{k}.mp4", 8)) for k in range(5)]
    run_writers(tmp_path / "cache", items, kill_after=2)
    assert run_writers(tmp_path / "cache", items) == [3]
    cache = cache_in(tmp_path / "cache")
    assert not CacheFiller(cache, plan_of(*items).entries).missing


def test_a_reader_keeps_what_it_read_while_the_entry_is_written_again(tmp_path, make_clip):
    cache, entry, _ = filled(tmp_path / "cache", item(make_clip()))
    features, times_s = cache.read(entry, 0)
    held = features.clone()
    film = entry.decode(cache.card)
    cache.write(entry, film, torch.zeros(len(film.frames), 16, 16))
    assert torch.equal(features, held)
    assert not cache.read(entry, 0)[0].any()
    assert len(times_s) == FRAMES


SETTINGS = {"_target_": "mmavlm.model.encoders.TinyEncoder", "width": 16, "chunk_size": 4}


def test_an_encoder_is_found_by_its_settings_but_not_by_its_chunks(tmp_path):
    card = EncoderCard.of(tiny_encoder())
    assert find_card(tmp_path, SETTINGS) is None
    note_card(tmp_path, SETTINGS, card)
    assert find_card(tmp_path, SETTINGS) == card
    assert find_card(tmp_path, {**SETTINGS, "chunk_size": 9}) == card
    assert find_card(tmp_path, {**SETTINGS, "width": 32}) is None
    told = json.loads((tmp_path / card.folder / "encoder.json").read_text())
    assert told["fingerprint"] == card.fingerprint
    assert told["settings"] == SETTINGS


def test_weights_that_change_behind_their_name_are_another_encoder(tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"one")
    for where in (weights, weights / "model.safetensors"):
        settings = {**SETTINGS, "pretrained": str(where)}
        note_card(tmp_path / "cache", settings, EncoderCard.of(tiny_encoder()))
        assert find_card(tmp_path / "cache", settings) is not None
        (weights / "model.safetensors").write_bytes(b"another " + str(where).encode())
        assert find_card(tmp_path / "cache", settings) is None


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b'{"image_size": 32}', b"\xff\xfe", b" " * (2 << 20),
        b'{"image_size": 99999999, "num_tokens": 1, "width": 1, "fingerprint": "a"}',
        b'{"image_size": "32", "num_tokens": 1, "width": 1, "fingerprint": "a"}',
    ],
)  # fmt: skip
def test_a_damaged_card_is_told_and_the_encoder_built(tmp_path, caplog, content):
    note_card(tmp_path, SETTINGS, EncoderCard.of(tiny_encoder()))
    (path,) = (tmp_path / "encoders").iterdir()
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert find_card(tmp_path, SETTINGS) is None
    assert f"{path} is damaged" in caplog.text


def test_a_fingerprint_cannot_lead_out_of_the_cache(tmp_path):
    card = replace(EncoderCard.of(tiny_encoder()), fingerprint="../../out")
    assert card.folder.isalnum()
