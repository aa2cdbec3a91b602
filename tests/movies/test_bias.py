import hashlib
import json
from collections import Counter

import pytest

from mmavlm.core.errors import ConfigError
from mmavlm.data.readers import CaptionReader, OwnReader, PopeReader
from mmavlm.movies.bias import PAIRS, BiasSettings, make_bias_set, plan_films, statistics
from mmavlm.movies.generators import ProceduralImages

SETTINGS = BiasSettings(films=60, frames=2)


@pytest.fixture(scope="module")
def bias_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("bias")
    make_bias_set(root, SETTINGS, ProceduralImages(32))
    return root


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

    def digests(root):
        files = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return {p.relative_to(root): hashlib.sha256(p.read_bytes()).digest() for p in files}

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


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [({"bias": 0.4}, "between 0.5"), ({"films": 10}, "films=10 is below 40")],
)
def test_settings_that_make_no_bias_set_are_refused(setting, complaint):
    with pytest.raises(ConfigError, match=complaint):
        BiasSettings(**setting)
