import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.errors import DataError
from mmavlm.metrics import Chair, ObjectVocabulary, SoundVocabulary
from mmavlm.metrics.objects import plural, singular

SMALL = ObjectVocabulary(
    {"dog": ["puppy"], "sausage": ["hot dog"], "person": ["man", "people"], "rice": [],
     "glasses": [], "apple": []}, uncounted=["rice"],
)  # fmt: skip


def test_phrases_plurals_and_synonyms_name_an_object():
    assert SMALL.mentions("Two men eat hot dogs; their PUPPIES and a dog watch people.") == [
        "person", "sausage", "dog", "dog", "person"
    ]  # fmt: skip
    assert SMALL.mentions("a doggedly hot cat") == []


@pytest.mark.parametrize(
    ("many", "one"),
    [("dogs", "dog"), ("boxes", "box"), ("berries", "berry"), ("men", "man"), ("buses", "bus"),
     ("women", "woman"), ("firemen", "fireman"), ("knives", "knife"), ("glasses", "glass"),
     ("potatoes", "potato"), ("dishes", "dish"), ("grass", "grass"), ("tennis", "tennis"),
     ("gas", "gas"), ("children", "child"), ("shoes", "shoe"), ("ties", "tie")],
)  # fmt: skip
def test_plurals_lose_their_ending(many, one):
    assert singular(many) == one


COUNTED = [
    name for name in ObjectVocabulary.read().names if name not in ObjectVocabulary.read().uncounted
]


@given(st.sampled_from(COUNTED))
def test_every_object_is_found_by_its_plural_too(name):
    assert ObjectVocabulary.read().mentions(f"many {plural(name)}") == [name]


@pytest.mark.parametrize(
    ("one", "many"),
    [("dog", "dogs"), ("box", "boxes"), ("berry", "berries"), ("toy", "toys"), ("woman", "women"),
     ("hot dog", "hot dogs"), ("knife", "knives"), ("person", "people"), ("sheep", "sheep"),
     ("scissors", "scissors"), ("bus", "buses"), ("glass", "glasses")],
)  # fmt: skip
def test_a_noun_gets_the_ending_of_its_plural(one, many):
    assert plural(one) == many


def test_objects_stand_where_the_text_has_them():
    text = "\u0130 Two MEN eat hot dogs; a dog waits."  # longer in lower case
    found = [(name, text[start:end]) for name, start, end in SMALL.places(text)]
    assert found == [("person", "MEN"), ("sausage", "hot dogs"), ("dog", "dog")]


@given(st.sampled_from(ObjectVocabulary.read().names))
def test_every_object_of_the_built_in_list_is_found_by_its_own_name(name):
    assert ObjectVocabulary.read().mentions(f"there: {name}!") == [name]


def test_the_built_in_list_says_that_it_is_our_own():
    from importlib.resources import files

    head = files("mmavlm.metrics").joinpath("objects.txt").read_text()[:400]
    assert "written for mmavlm" in head
    assert "not MS COCO's" in head


def test_questions_have_the_right_article():
    names = ("dog", "apple", "rice", "glasses")
    assert [SMALL.question(name) for name in names] == [
        "Is there a dog in the video?", "Is there an apple in the video?",
        "Is there rice in the video?", "Are there glasses in the video?",
    ]  # fmt: skip


def test_chair_of_three_captions_is_that_worked_out_by_hand():
    metric = Chair(SMALL)
    metric.update(
        ["0", "1", "2"],
        ["a man walks his dog past another dog", "a puppy eats rice", "it rains"],
        [["a person walks"], ["a dog", "rice is eaten"], ["people and an apple"]],
    )
    values = metric.compute()
    # mentions: person dog dog | dog rice | –; wrong: dog dog
    assert values["chair_s"] == pytest.approx(1 / 3)
    assert values["chair_i"] == pytest.approx(2 / 5)
    # there: person | dog rice | person apple; named: person | dog rice | –
    assert values["object_recall"] == pytest.approx(3 / 5)
    assert (values["mentions"], values["count"]) == (5, 3)
    assert values["chair_i_low"] <= values["chair_i"] <= values["chair_i_high"]


def test_captions_without_objects_have_no_chair_i():
    metric = Chair(SMALL)
    metric.update(["0"], ["it rains"], [["a dog"]])
    values = metric.compute()
    assert values["chair_s"] == 0
    assert math.isnan(values["chair_i"])


@pytest.mark.filterwarnings("ignore:.*was called before the ``update``.*")
def test_without_captions_all_are_nan():
    values = Chair(SMALL).compute()
    assert all(math.isnan(values[name]) for name in ("chair_s", "chair_i", "object_recall"))
    assert values["count"] == 0


def test_a_vocabulary_of_ones_own_is_read_from_a_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# mine\n\ndrone: quadcopter, flying camera\n*smoke\n")
    metric = Chair(path)
    assert metric.vocabulary.mentions("flying cameras in smoke") == ["drone", "smoke"]
    assert metric.vocabulary.question("smoke") == "Is there smoke in the video?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog: puppy\ncat: puppy\n", "'puppy' stands for 'dog' and for 'cat'"),
        ("dog\ndog: puppy\n", "line 2: 'dog' occurs twice"),
        (": puppy\n", "line 1: no name before the colon"),
        ("dog: 7\n", "synonym without letters: '7'"),
        ("# nothing\n", "without objects"),
    ],
)
def test_a_broken_vocabulary_is_told_with_its_place(tmp_path, text, message):
    path = tmp_path / "words.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        ObjectVocabulary.read(path)
    assert str(path) in str(error.value)


def test_a_vocabulary_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.txt does not exist"):
        Chair(tmp_path / "absent.txt")


@given(st.sampled_from(SoundVocabulary.read().names))
def test_every_sound_of_the_built_in_list_is_found_by_its_own_name(name):
    assert SoundVocabulary.read().mentions(f"one hears {name}!") == [name]


def test_sounds_are_found_in_captions_as_people_write_them():
    sounds = SoundVocabulary.read()
    told = "A dog barks twice while a man is speaking, then sirens wail and the crowd applauded."
    assert sounds.mentions(told) == ["barking", "speech", "siren", "applause"]
    assert sounds.mentions("a dog on a train beside a bell and a guitar") == []


def test_questions_about_sounds_have_the_right_article():
    sounds = SoundVocabulary.read()
    assert [sounds.question(name) for name in ("barking", "siren", "alarm")] == [
        "Is there a sound of barking in the video?", "Is there a sound of a siren in the video?",
        "Is there a sound of an alarm in the video?",
    ]  # fmt: skip
