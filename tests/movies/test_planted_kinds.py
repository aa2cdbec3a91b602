"""Planted bias in time and between the senses: what is planned, drawn, heard and asked agree."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.readers import CaptionReader, HeardReader, OwnReader
from mmavlm.data.sound import SoundSource
from mmavlm.metrics.planted_bias import TASKS
from mmavlm.movies import bias, bias_order, bias_sound
from mmavlm.movies.bias import pair_of, statistics
from mmavlm.movies.bias_order import OrderSettings, make_order_set, order_rows, parts
from mmavlm.movies.bias_sound import SoundSettings, make_sound_set
from mmavlm.movies.generators import ProceduralImages
from mmavlm.movies.noises import NOISES, noise_track
from mmavlm.movies.sound import RATE_HZ

KINDS = {
    "order": (make_order_set, OrderSettings, bias_order.PAIRS),
    "sound": (make_sound_set, SoundSettings, bias_sound.PAIRS),
}
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def made(kind, tmp_path_factory):
    """A set of a kind on disk, the plan it was made from, and its pairs."""
    make, settings, pairs = KINDS[kind]
    root = tmp_path_factory.mktemp(kind)
    make(root, settings(films=40), ProceduralImages(32))
    films = {f"film{f.number:05d}": f for f in settings(films=40).plan(pairs)}
    return root, films, pairs


def rows(root, split):
    return [json.loads(line) for line in (root / f"{split}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("seed", range(3))
def test_the_habit_holds_nine_times_in_ten_in_training_and_every_other_time_in_the_test(kind, seed):
    _, settings, pairs = KINDS[kind]
    for row in statistics(settings(films=400, seed=seed).plan(pairs), pairs):
        expected = (0.5, 0.5) if row["split"] == "test" else (0.9, 0.1)
        found = row["companion_with_anchor"], row["companion_without"]
        assert found == pytest.approx(expected, abs=0.01)
        assert row["with_anchor"] * 2 == row["films"]


def test_every_question_is_answered_with_yes_as_often_as_with_no(made):
    root, _, pairs = made
    for split in SPLITS:
        asked = Counter((r["prompt"], r["answer"]) for r in rows(root, split))
        assert len({prompt for prompt, _ in asked}) == 2 * len(pairs)
        assert len(set(asked.values())) == 1


def test_tasks_say_what_is_true_and_whether_the_partner_makes_it_likely(made):
    root, films, pairs = made
    partner = dict(pairs) | {b: a for a, b in pairs}
    for row in (row for split in SPLITS for row in rows(root, split)):
        name, _, asked = row["id"].rpartition("-")
        film = films[name.split("_")[0]]
        likely = "likely" if partner[asked] in film.objects else "unlikely"
        assert row["task"] == f"{'present' if row['answer'] == 'yes' else 'absent'}_{likely}"
        assert (row["answer"] == "yes") == (asked in film.objects)
    assert {row["task"] for row in rows(root, "test")} == set(TASKS)


def test_both_questions_about_a_pair_are_of_one_pair_and_each_pair_of_its_own(made):
    root, _, pairs = made
    by_pair = {}
    for row in rows(root, "test"):
        by_pair.setdefault(pair_of(row["id"]), set()).add(row["id"].rpartition("-")[2])
    assert by_pair == {anchor: {anchor, companion} for anchor, companion in pairs}


def test_pairs_of_objects_are_found_by_the_object_and_others_are_refused():
    assert [pair_of(f"film00003_{name}") for name in ("plant", "bin")] == ["plant", "plant"]
    with pytest.raises(DataError, match="asks for no object"):
        pair_of("film00003_boat")
    assert {name for pair in bias.PAIRS for name in pair} >= {"plant", "bin"}


def test_two_sets_are_equal_and_no_two_films_share_a_file(made, kind, tmp_path):
    root, films, _ = made
    make, settings, _ = KINDS[kind]
    make(tmp_path, settings(films=40), ProceduralImages(32))

    def digests(folder):
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {p.relative_to(folder): hashlib.sha256(p.read_bytes()).digest() for p in files}

    assert digests(tmp_path) == digests(root)
    assert len(list((root / "films").iterdir())) == len(films)


def test_captions_are_read_and_name_what_is_shown(made):
    root, films, _ = made
    told = {item.item_id: item.target for item in CaptionReader()(root, "test", None)}
    for name, caption in told.items():
        made_of = OrderSettings(films=40)
        shown = frozenset.union(*parts(films[name], made_of)) if "first" in caption else None
        for thing in shown or films[name].objects:
            assert f"a {thing}" in caption


@pytest.mark.parametrize("make_settings", [OrderSettings, SoundSettings])
@pytest.mark.parametrize(
    ("setting", "complaint"),
    [({"bias": 0.4}, "between 0.5"), ({"films": 10}, "films=10 is below 40"),
     ({"frames": 0}, "frames=0 is below 1"), ({"fps": 0}, "fps=0 is below 1"),
     ({"seed": -1}, "seed=-1 is below 0")],
)  # fmt: skip
def test_settings_that_make_no_set_are_refused(make_settings, setting, complaint):
    with pytest.raises(ConfigError, match=complaint):
        make_settings(**setting)


ORDERED = OrderSettings(films=80, frames=2)


def test_every_film_shows_every_object_once_so_that_who_ignores_time_is_at_chance():
    everything = sorted(name for pair in bias_order.PAIRS for name in pair)
    for film in ORDERED.plan(bias_order.PAIRS):
        start, end = parts(film, ORDERED)
        assert sorted([*start, *end]) == everything


def test_questions_about_start_and_end_are_true_of_the_frames_drawn():
    for film in ORDERED.plan(bias_order.PAIRS):
        _, frames = bias_order.scenes(film, ORDERED)
        shown = [set(frame.decor) for frame in frames]
        assert shown[0] == shown[1]
        assert shown[2] == shown[3]
        for first, second in bias_order.PAIRS:
            assert (first in shown[0]) == (first in film.objects)
            assert (second in shown[-1]) == (second in film.objects)


def test_which_of_two_comes_after_the_other_is_asked_both_ways_and_of_both_orders():
    settings = OrderSettings(films=400)
    films = settings.plan(bias_order.PAIRS)
    for split in SPLITS:
        orders = Counter()
        for film in (film for film in films if film.split == split):
            start, _ = parts(film, settings)
            asked = list(order_rows(settings, film, "film.mp4"))
            for one, other in zip(asked[::2], asked[1::2], strict=True):
                assert {one["answer"], other["answer"]} == {"yes", "no"}
                assert pair_of(one["id"]) == pair_of(other["id"])
                later = one["id"].rpartition("-")[2]
                assert (later in start) == (one["answer"] == "no")
                orders[later, one["answer"]] += 1
        # either order as often: neither the words nor what is shown tell it
        for _, second in bias_order.PAIRS:
            assert orders[second, "yes"] == pytest.approx(orders[second, "no"], abs=2)
            assert orders[second, "yes"] > 0


@pytest.mark.parametrize("absent", [0.5, 1.0])
def test_absent_objects_are_some_of_those_that_are_not_where_they_are_asked_for(absent):
    settings = OrderSettings(films=400, absent=absent)
    elsewhere = []
    for film in settings.plan(bias_order.PAIRS):
        start, end = parts(film, settings)
        for first, second in bias_order.PAIRS:
            assert (first in start) == (first in film.objects)
            assert (second in end) == (second in film.objects)
        shown = start | end
        elsewhere += [n in shown for p in bias_order.PAIRS for n in p if n not in film.objects]
        for row in order_rows(settings, film, "film.mp4"):
            assert {pair_of(row["id"]), row["id"].rpartition("-")[2]} <= shown
    assert np.mean(elsewhere) == pytest.approx(1 - absent, abs=0.05)


@pytest.mark.parametrize("absent", [-0.1, 1.5])
def test_a_share_of_absent_objects_lies_between_none_and_all(absent):
    with pytest.raises(ConfigError, match=f"absent={absent} must lie between 0 and 1"):
        OrderSettings(absent=absent)


def test_questions_about_order_are_read(tmp_path):
    make_order_set(tmp_path, OrderSettings(films=40), ProceduralImages(32))
    items = OwnReader(folder="order")(tmp_path, "test", None)
    assert {item.task for item in items} == {"order"}
    assert all(item.film.source.is_file() for item in items)


def test_a_film_lasts_as_long_as_it_is_heard_and_is_read_with_both_senses(tmp_path):
    make_sound_set(tmp_path, SoundSettings(films=40, frames=3), ProceduralImages(32))
    items = HeardReader(OwnReader())(tmp_path, "test", None)
    assert len(items) == 8 * 8
    for item in items[:16:8]:
        assert [m.kind for m in item.conversation.media] == ["sound", "film"]
        assert SoundSource(item.conversation.media[0].source).duration_s == pytest.approx(3.0)


def power(samples):
    """Mean power in each of 64 bands of equal width."""
    spectrum = np.abs(np.fft.rfft(samples / 32767.0)) ** 2
    return spectrum[: len(spectrum) // 64 * 64].reshape(64, -1).mean(axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_heard_can_be_told_from_the_spectrum_and_is_not_cut_off(seed):
    names = sorted(NOISES)
    alone = np.stack([power(noise_track([n], 2.0, np.random.default_rng(9))) for n in names])
    own = [int((alone[i] / (alone.sum(axis=0) + 1e-9)).argmax()) for i in range(len(names))]
    silent = power(noise_track([], 2.0, np.random.default_rng(seed)))
    for code in range(16):
        heard = {n for i, n in enumerate(names) if code >> i & 1}
        track = noise_track(heard, 2.0, np.random.default_rng([seed, code]))
        assert np.abs(track).max() < 32767
        near = [power(track)[max(b - 3, 0) : b + 4].max() for b in own]
        floor = [silent[max(b - 3, 0) : b + 4].max() for b in own]
        for name, loud, quiet in zip(names, near, floor, strict=True):
            if name in heard:
                assert loud > 5 * quiet
        if not heard:
            assert all(loud < 3 * quiet for loud, quiet in zip(near, floor, strict=True))


@pytest.mark.parametrize("name", sorted(NOISES))
def test_a_noise_lasts_through_the_film(name):
    track = noise_track([name], 2.0, np.random.default_rng(0)) / 32767.0
    assert len(track) == 2 * RATE_HZ
    assert all(part.std() > 0.006 for part in np.split(track, 4))


def test_pictures_do_not_tell_what_is_heard_nor_sounds_what_is_seen():
    settings = SoundSettings(films=40)
    film = settings.plan(bias_sound.PAIRS)[0]
    things = frozenset(thing for thing, _ in bias_sound.PAIRS)
    deaf = bias.BiasedFilm(film.split, film.number, film.objects & things)
    blind = bias.BiasedFilm(film.split, film.number, film.objects - things)
    assert bias_sound.scenes(deaf, settings) == bias_sound.scenes(film, settings)
    assert np.array_equal(bias_sound.track(blind, settings), bias_sound.track(film, settings))


def test_the_recipe_chooses_a_kind_by_one_setting_that_leaves_arm_and_remedy_free():
    from hydra import compose, initialize_config_dir

    conf = str(Path(__file__).parents[2] / "conf")
    with initialize_config_dir(conf, version_base=None):
        found = {
            name: compose(
                "train", ["experiment=ablation", f"habit={name}", "arm=one_level", "remedy=none"]
            )
            for name in ("objects", "order", "sound")
        }
        first = compose("train", ["experiment=ablation_alignment", "habit=order"])
    makers = {name: config.prepare._target_.rpartition(".")[2] for name, config in found.items()}
    assert makers == {
        "objects": "make_bias_set", "order": "make_order_set", "sound": "make_sound_set",
    }  # fmt: skip
    assert len({config.data.root for config in found.values()}) == 3
    assert [c.sound is not None for c in found.values()] == [False, False, True]
    assert [c.vision.position_init for c in (*found.values(), first)] == [
        "zeros", "sinusoids", "zeros", "sinusoids",
    ]  # fmt: skip
    assert first.prepare._target_.endswith("make_order_set")
    assert first.data.reader._target_.endswith("CaptionReader")
