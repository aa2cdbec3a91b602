import hashlib
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image

from mmavlm.core.errors import ConfigError
from mmavlm.data.readers import CaptionReader, OwnReader, PopeReader
from mmavlm.movies.bias import (
    PAIRS,
    BiasSettings,
    make_bias_set,
    pair_of,
    plan_films,
    statistics,
)
from mmavlm.movies.generators import ProceduralImages
from mmavlm.movies.stories.reel import film_key

SETTINGS = BiasSettings(films=60, frames=2)
WITH_TWINS = replace(SETTINGS, counterfactual=True)


@pytest.fixture(scope="module")
def bias_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("bias")
    make_bias_set(root, SETTINGS, ProceduralImages(32))
    return root


@pytest.fixture(scope="module")
def with_twins(tmp_path_factory):
    root = tmp_path_factory.mktemp("twins")
    make_bias_set(root, WITH_TWINS, ProceduralImages(32))
    return root


def digests(root):
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {p.relative_to(root): hashlib.sha256(p.read_bytes()).digest() for p in files}


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def shown(settings=SETTINGS):
    """The objects of each film of the plan, by the name of the film."""
    return {f"film{film.number:05d}": film for film in plan_films(settings)}


@pytest.mark.parametrize("seed", range(5))
def test_companions_come_nine_times_in_ten_in_training_and_every_other_time_in_the_test(seed):
    for row in statistics(plan_films(BiasSettings(films=400, seed=seed))):
        expected = (0.5, 0.5) if row["split"] == "test" else (0.9, 0.1)
        found = row["companion_with_anchor"], row["companion_without"]
        assert found == pytest.approx(expected, abs=0.01)
        assert row["with_anchor"] * 2 == row["films"]


def test_every_object_is_in_half_of_the_films_of_every_split():
    films = plan_films(BiasSettings(films=400))
    for split in ("train", "val", "test"):
        own = [film for film in films if film.split == split]
        counts = Counter(name for film in own for name in film.objects)
        assert set(counts) == {name for pair in PAIRS for name in pair}
        assert all(2 * count == len(own) for count in counts.values())


def test_pairs_do_not_depend_on_each_other_in_the_test():
    own = [film for film in plan_films(BiasSettings(films=4000)) if film.split == "test"]
    for anchor, _ in PAIRS:
        for other, _ in PAIRS:
            both = sum({anchor, other} <= film.objects for film in own) / len(own)
            assert both == pytest.approx(0.5 if anchor == other else 0.25, abs=0.05)


def test_probes_are_balanced_and_true(bias_set):
    objects = shown()
    reader = PopeReader()
    for strategy in ("random", "popular", "adversarial"):
        lines = (bias_set / "pope" / f"pope_{strategy}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert Counter(row["label"] for row in rows) == {
            "yes": len(rows) // 2,
            "no": len(rows) // 2,
        }
        assert len(reader(bias_set, "test", strategy)) == len(rows) > 0
    films = {row["video"]: objects[row["id"]] for row in map(json.loads, (
        bias_set / "captions" / "test.jsonl").read_text().splitlines())}  # fmt: skip
    for row in rows:
        film = films[row["video"]]
        assert film.split == "test"
        assert (row["object"] in film.objects) == (row["label"] == "yes")


def test_adversarial_probes_ask_for_what_is_absent_though_its_partner_is_there(bias_set):
    partner = dict(PAIRS) | {companion: anchor for anchor, companion in PAIRS}
    objects = shown()
    captions = (bias_set / "captions" / "test.jsonl").read_text().splitlines()
    films = {row["video"]: objects[row["id"]].objects for row in map(json.loads, captions)}
    lines = (bias_set / "pope" / "pope_adversarial.jsonl").read_text().splitlines()
    absent = [row for row in map(json.loads, lines) if row["label"] == "no"]
    assert absent
    assert all(partner[row["object"]] in films[row["video"]] for row in absent)


def test_questions_and_captions_are_read_and_tell_what_is_shown(bias_set):
    objects = shown()
    for split in ("train", "val", "test"):
        asked = OwnReader()(bias_set, split, None)
        told = CaptionReader()(bias_set, split, None)
        assert len(asked) == 8 * len(told)
        for item in asked:
            film, name = item.item_id.split("_")
            there = name in objects[film].objects
            assert item.target == ("yes" if there else "no")
            assert item.task.startswith("present" if there else "absent")
            assert item.film.source.is_file()


def test_no_two_films_of_a_set_share_a_file_and_two_sets_are_equal(bias_set, tmp_path):
    make_bias_set(tmp_path, SETTINGS, ProceduralImages(32))

    assert digests(tmp_path) == digests(bias_set)
    assert len(list((bias_set / "films").iterdir())) == 60


def test_objects_of_a_pair_share_a_place_in_films_of_several(tmp_path):
    from mmavlm.movies.bias import _scenes

    settings = BiasSettings(films=40, scenes=3, frames=2)
    for film in plan_films(settings):
        _, frames = _scenes(film, settings)
        assert len(frames) == 6
        assert set().union(*(frame.decor for frame in frames)) == film.objects
        for pair in PAIRS:
            places = {frame.location for frame in frames if set(pair) & set(frame.decor)}
            assert len(places) <= 1


def test_twins_change_nothing_of_the_set_that_they_stand_beside(bias_set, with_twins):
    without, beside = digests(bias_set), digests(with_twins)
    assert {path: beside[path] for path in without} == without
    twins = {row["video"] for row in rows_of(with_twins / "counterfactual.jsonl")}
    more = {path.parts[:2] for path in beside.keys() - without.keys()}
    assert more == {
        ("counterfactual.jsonl",), ("captions", "counterfactual.jsonl"),
        *(("films", video.split("/")[1]) for video in twins),
    }  # fmt: skip


@pytest.mark.slow
def test_two_processes_at_once_make_what_one_does(with_twins, tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        each = (tmp_path, WITH_TWINS, ProceduralImages(32))
        made = [pool.submit(make_bias_set, *each) for _ in range(2)]
    assert made[0].result() == made[1].result()
    assert digests(tmp_path) == digests(with_twins)


def test_each_training_film_with_an_entire_pair_has_one_twin_that_lacks_one_of_its_objects(
    with_twins,
):
    films = {f"film{f.number:05d}": f for f in plan_films(SETTINGS) if f.split == "train"}
    entire = {n for n, f in films.items() if any(f.objects.issuperset(pair) for pair in PAIRS)}
    told = rows_of(with_twins / "captions/counterfactual.jsonl")
    assert {row["id"].split("-")[0] for row in told} == entire
    assert len(told) == len(entire)
    videos = {row["id"]: row["video"] for row in rows_of(with_twins / "captions/train.jsonl")}
    for row in told:
        film, removed = row["id"].split("-")
        assert row["counterfactual_of"] == videos[film]
        assert row["removed"] == removed
        named = {name for pair in PAIRS for name in pair if f"a {name}" in row["caption"]}
        assert named == films[film].objects - {removed}
    place = Counter([*zip(*PAIRS, strict=True)][1].count(row["removed"]) for row in told)
    assert min(place.values()) > len(told) / 4  # anchors and companions alike


def test_twins_are_asked_for_both_objects_of_the_pair_and_read_with_what_they_are_twins_of(
    with_twins,
):
    items = OwnReader(train="counterfactual.jsonl")(with_twins, "train", None)
    partner = dict(PAIRS) | {companion: anchor for anchor, companion in PAIRS}
    asked = {}
    for item in items:
        asked.setdefault(item.video_id, []).append(item)
    for rows in asked.values():
        removed = rows[0].meta["removed"]
        found = {(row.item_id.rpartition("_")[2], row.target, row.task) for row in rows}
        assert found == {
            (removed, "no", "absent_likely"), (partner[removed], "yes", "present_unlikely"),
        }  # fmt: skip
        assert (with_twins / rows[0].meta["counterfactual_of"]).is_file()
        assert {pair_of(row.item_id) for row in rows} <= dict(PAIRS).keys()
    captions = CaptionReader(train="counterfactual.jsonl")(with_twins, "train", None)
    assert {item.video_id for item in captions} == asked.keys()


def test_the_pictures_of_a_twin_differ_where_the_object_is_and_nowhere_else(with_twins):
    from mmavlm.movies.bias import _scenes

    images = ProceduralImages(32)
    films = {f"film{film.number:05d}": film for film in plan_films(SETTINGS)}
    for row in rows_of(with_twins / "captions/counterfactual.jsonl"):
        style, frames = _scenes(films[row["id"].split("-")[0]], SETTINGS)
        key = film_key(frames, style, images, SETTINGS.fps)
        held = images.prepare_style(style, int(key[:8], 16))
        empty = frames[0].model_copy(update={"actors": (), "decor": ()})
        alone = empty.model_copy(update={"decor": (row["removed"],)})
        bare, there = images.render([empty, alone], held, [0, 0])
        where = (bare != there).any(axis=-1)
        own, twin = (
            sorted((with_twins / row[name]).parent.glob("frames/*.png"))
            for name in ("counterfactual_of", "video")
        )
        assert len(own) == len(twin) == SETTINGS.frames
        for one, other in zip(own, twin, strict=True):
            changed = (np.asarray(Image.open(one)) != np.asarray(Image.open(other))).any(axis=-1)
            assert changed.any()
            assert not changed[~where].any()


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"counterfactual": "yes"}, "counterfactual must be true or false"),
        ({"bias": 0.4}, "between 0.5"),
        ({"films": 10}, "films=10 is below 40"),
    ],
)
def test_settings_that_make_no_bias_set_are_refused(setting, complaint):
    with pytest.raises(ConfigError, match=complaint):
        BiasSettings(**setting)


def test_twins_of_another_set_do_not_outlast_it(tmp_path):
    images = ProceduralImages(32)
    files = [tmp_path / "counterfactual.jsonl", tmp_path / "captions/counterfactual.jsonl"]
    make_bias_set(tmp_path, replace(WITH_TWINS, films=40, frames=1), images)
    make_bias_set(tmp_path, replace(SETTINGS, films=40, frames=1), images)
    assert all(file.is_file() for file in files), "the same set, written without its twins"
    make_bias_set(tmp_path, replace(SETTINGS, films=40, frames=1, bias=0.6), images)
    assert not any(file.is_file() for file in files)
