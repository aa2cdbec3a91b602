import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.data.object_probes import ProbeMaker, describe, write_probes
from mmavlm.data.readers import PopeReader, ReferenceReader
from mmavlm.data.readers.pope import STRATEGIES
from mmavlm.metrics import ObjectVocabulary, SoundVocabulary

NAMES = ("dog", "cat", "ball", "tree", "boat", "car", "hat")
VOCABULARY = ObjectVocabulary({name: [] for name in NAMES})
captions = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3)
films_of_captions = st.lists(
    st.lists(captions, min_size=1, max_size=3), min_size=3, max_size=8
).filter(lambda films: len({n for film in films for caption in film for n in caption}) > 1)


def described(films):
    """Films whose captions name the given objects."""
    items = [
        Item.question(item_id=f"{i}", video_id=f"v{i}", source=Path(f"/data/v{i}.mp4"), prompt="",
                  target=texts[0], task="caption", references=tuple(texts))
        for i, film in enumerate(films)
        for texts in (["a " + " and a ".join(caption) + f" {n}" for n, caption in enumerate(film)],)
    ]  # fmt: skip
    return describe(items, VOCABULARY, Path("/data"))


@settings(max_examples=40)
@given(films_of_captions, st.sampled_from(STRATEGIES), st.integers(0, 3))
def test_half_the_questions_are_of_objects_that_are_there_and_half_of_absent_ones(
    films, strategy, seed
):
    known = described(films)
    rows = list(ProbeMaker(known, VOCABULARY, agree=1, seed=seed).questions(strategy))
    named = {film.video: set(film.named) for film in known}
    for yes, no in zip(rows[::2], rows[1::2], strict=True):
        assert (yes["label"], no["label"]) == ("yes", "no")
        assert yes["video"] == no["video"]
        assert yes["object"] in named[yes["video"]]
        assert no["object"] not in named[no["video"]]
    asked = Counter((row["video"], row["object"]) for row in rows)
    assert max(asked.values(), default=1) == 1
    assert max(Counter(row["video"] for row in rows).values(), default=0) <= 6


def test_popular_and_adversarial_absent_objects_are_those_of_the_counts():
    films = [[["dog", "ball"]], [["dog", "ball"]], [["dog", "hat"]], [["cat", "tree"]],
             [["cat", "tree"]], [["ball"]]]  # fmt: skip
    maker = ProbeMaker(described(films), VOCABULARY, per_film=1, agree=1)
    popular = {r["video"]: r["object"] for r in maker.questions("popular") if r["label"] == "no"}
    # ball and dog occur three times, cat and tree twice: the first by name of those not there
    assert popular["v3.mp4"] == "ball"
    assert popular["v5.mp4"] == "dog"
    rows = list(maker.questions("adversarial"))
    (yes, no) = (row for row in rows if row["video"] == "v5.mp4")
    assert (yes["object"], no["object"]) == ("ball", "dog")


def test_what_is_there_is_the_same_whatever_the_strategy():
    maker = ProbeMaker(described([[["dog", "cat", "hat", "car"]], [["ball"]], [["tree"]]]),
                       VOCABULARY, per_film=2, agree=1)  # fmt: skip
    present = [[r["object"] for r in maker.questions(s) if r["label"] == "yes"] for s in STRATEGIES]
    assert present[0] == present[1] == present[2]


def test_the_seed_decides_and_nothing_else():
    films = described([[["dog", "cat", "hat"]], [["ball", "car"]], [["tree", "boat"]]] * 4)
    one, same, other = (
        list(ProbeMaker(films, VOCABULARY, agree=1, seed=seed).questions("random"))
        for seed in (0, 0, 1)
    )
    assert one == same != other


def test_an_object_is_there_if_enough_captions_agree():
    films = described([[["dog", "hat"], ["dog"], ["dog", "cat"]], [["ball"]], [["tree"]]])
    rows = list(ProbeMaker(films, VOCABULARY, agree=2).questions("random"))
    there = {(r["video"], r["object"]) for r in rows if r["label"] == "yes"}
    assert there == {("v0.mp4", "dog"), ("v1.mp4", "ball"), ("v2.mp4", "tree")}
    assert not any(r["object"] in ("hat", "cat") for r in rows if r["video"] == "v0.mp4")


def test_objects_that_are_left_out_are_not_asked_for():
    films = described([[["dog", "hat"]], [["ball", "dog"]], [["tree"]]])
    assert ProbeMaker(films, VOCABULARY, agree=1, leave_out="dog").leave_out == {"dog"}
    maker = ProbeMaker(films, VOCABULARY, agree=1, leave_out=["dog"])
    for strategy in STRATEGIES:
        assert "dog" not in {row["object"] for row in maker.questions(strategy)}


@pytest.mark.parametrize(
    ("settings_given", "message"),
    [
        ({"per_film": 0}, "per_film must be at least 1, got 0"),
        ({"agree": 0}, "agree must be at least 1, got 0"),
        ({"leave_out": ["unicorn"]}, r"leave_out names \['unicorn'\]"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings_given, message):
    with pytest.raises(ConfigError, match=message):
        ProbeMaker(described([[["dog"]], [["cat"]]]), VOCABULARY, **settings_given)


def test_captions_that_name_one_object_cannot_make_questions():
    with pytest.raises(DataError, match="captions of 2 films name 1 objects"):
        ProbeMaker(described([[["dog"]], [["dog"]]]), VOCABULARY)


def test_what_is_written_is_read_as_it_was_made(tmp_path):
    films = described([[["dog", "cat"]], [["ball"]], [["tree", "hat"]]])
    maker = ProbeMaker(films, VOCABULARY, agree=1)
    counts = write_probes(maker, tmp_path / "pope")
    items = PopeReader()(tmp_path, "test", None)
    assert Counter(item.task for item in items) == counts
    first = next(maker.questions("random"))
    assert (items[0].prompt, items[0].target) == (first["text"], first["label"])
    assert items[0].film.source == tmp_path / first["video"]


def test_a_film_outside_the_root_is_refused():
    item = Item.question(item_id="0", video_id="v", source=Path("/else/v.mp4"), prompt="",
                         target="dog", task="caption")  # fmt: skip
    with pytest.raises(DataError, match=r"/else/v\.mp4 does not lie below data\.root=/data"):
        describe([item], VOCABULARY, Path("/data"))


@pytest.mark.real_data
def test_the_real_captions_of_msvd_make_balanced_questions(real_data, tmp_path):
    reader = ReferenceReader("msvd", "what?", source="video")
    vocabulary = ObjectVocabulary.read()
    films = describe(reader(real_data, "val", None), vocabulary, real_data)
    write_probes(ProbeMaker(films, vocabulary), tmp_path)
    for strategy in STRATEGIES:
        rows = [json.loads(row) for row in (tmp_path / f"pope_{strategy}.jsonl").open()]
        assert len(rows) > 400
        assert sum(row["label"] == "yes" for row in rows) * 2 == len(rows)
        assert len({row["video"] for row in rows}) > 90


HEARD = [["a dog barks"], ["a dog is barking, and somebody laughs"], ["a siren wails"],
         ["people applaud and laugh"], ["thunder, and then a bark"]]  # fmt: skip


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sounds_are_asked_for_as_objects_are(strategy):
    sounds = SoundVocabulary.read()
    items = [
        Item.question(item_id=f"{i}", video_id=f"v{i}", source=Path(f"/data/v{i}.mp4"), prompt="",
                  target=texts[0], task="caption", references=tuple(texts))
        for i, texts in enumerate(HEARD)
    ]  # fmt: skip
    films = describe(items, sounds, Path("/data"))
    rows = list(ProbeMaker(films, sounds, agree=1).questions(strategy))
    named = {film.video: set(film.named) for film in films}
    assert {row["video"] for row in rows} == set(named)
    assert Counter(row["label"] for row in rows) == dict.fromkeys(("yes", "no"), len(rows) // 2)
    for row in rows:
        assert row["text"] == sounds.question(row["object"])
        assert (row["object"] in named[row["video"]]) == (row["label"] == "yes")
    if strategy == "popular":
        assert next(r for r in rows if r["video"] == "v2.mp4" and r["label"] == "no")[
            "object"
        ] == "barking"  # fmt: skip
