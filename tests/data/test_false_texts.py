"""Texts that are not true of training items: what the makers of `data.false_texts` give."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.interfaces import Answer
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Shown, Turn
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.false_texts import CooccurringObjects, SwappedWords
from mmavlm.data.mix import MixedDataModule
from mmavlm.data.own_answers import OwnAnswers
from mmavlm.data.readers import OwnReader
from mmavlm.metrics.prediction_files import write_predictions
from mmavlm.metrics.predictions import Prediction
from mmavlm.movies.bias import PAIRS

CONF = Path(__file__).parents[2] / "conf"
FILMS = [["plant", "bin"], ["clock", "mirror"], ["lamp", "cat"]]


def item(reply, prompt="", name="q"):
    return Item.question(item_id=name, video_id="v", source=Path("v.mp4"), prompt=prompt,
                         target=reply, task="caption")  # fmt: skip


def false_replies(maker, reply, *training):
    """What a maker gives for the one view of an item with this reply."""
    asked = item(reply, "what?")
    (texts,) = maker.from_training([*map(item, training)] or [asked])(asked)
    assert all(guide == "what?" for guide, _ in texts)
    return [text for _, text in texts]


# --- swapped words


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("a clock", ["a mirror"]),
        ("A mirror, and a plant.", ["A clock, and a plant.", "A mirror, and a bin."]),
        ("a clock and a mirror", []),  # its partner is there
        ("Plants and a lamp", ["Bins and a lamp", "Plants and a cat"]),
        ("the clock above the clock", ["the mirror above the mirror"]),
        ("an o'clock-shaped thing in a planter", []),
        ("\u017f\u0130 a Plant", ["\u017f\u0130 a Bin"]),
    ],
)  # fmt: skip
def test_words_are_swapped_for_partners_that_are_not_named(reply, expected):
    assert false_replies(SwappedWords(FILMS), reply, "a clock") == expected


@pytest.mark.parametrize(
    ("pair", "reply", "expected"),
    [
        (["apple", "knife"], "She cuts an apple.", ["She cuts a knife."]),
        (["apple", "knife"], "A knife lies there.", ["An apple lies there."]),
        (["hot dog", "cola"], "he eats hot dogs", ["he eats colas"]),
        (["walks", "runs"], "a man walks home", ["a man runs home"]),
        (["cat", "dog"], "a cat or a hot dog", []),
    ],
)
def test_articles_plurals_and_actions_suit_what_they_stand_beside(pair, reply, expected):
    assert false_replies(SwappedWords([pair]), reply, f"a {pair[0]}") == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("yes", "no"), ("No.", "Yes."), ("YES", "NO"), (" no ", " yes "), ("(Yes)", "(No)")],
)
def test_an_answer_yes_is_false_where_no_is_true(reply, expected):
    assert false_replies(SwappedWords(FILMS), reply) == [expected]


@pytest.mark.parametrize("reply", ["yes, a clock", "nobody", "there is no clock"])
def test_longer_answers_are_not_read_as_yes_or_no(reply):
    found = false_replies(SwappedWords(FILMS), reply, "a clock")
    assert found == [text for text in [reply.replace("clock", "mirror")] if text != reply]


@given(
    st.lists(st.sampled_from([name for pair in PAIRS for name in pair]), max_size=8, unique=True)
)
def test_false_captions_of_the_controlled_films_name_something_that_is_not_there(objects):
    caption = " and ".join(f"a {name}" for name in objects) or "an empty room"
    for text in false_replies(SwappedWords(PAIRS, at_most=8), caption, "a cat"):
        named = {word for word in text.split() if word not in ("a", "and")}
        assert named - {*objects}
        assert len(named & {*objects}) == len(objects) - 1


def test_no_more_are_made_than_are_asked_for():
    reply = "a clock, a plant and a lamp"
    assert len(false_replies(SwappedWords(FILMS, at_most=2), reply)) == 2
    with pytest.raises(ConfigError, match=r"data.false_texts.at_most must be at least 1, got 0"):
        SwappedWords(FILMS, at_most=0)


def test_pairs_come_from_a_table_too(tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("word,partner\nfork,knife\nsits,stands\n")
    reply = "a man with a fork sits by a clock"
    assert false_replies(SwappedWords(FILMS[1:2], table), reply) == [
        "a man with a knife sits by a clock",
        "a man with a fork stands by a clock",
        "a man with a fork sits by a mirror",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "pairs.csv does not exist; give a table with the columns word and partner"),
        ("word,partner\n", "pairs.csv holds no pairs"),
        ("word,partner\nfork,\n", "pairs.csv, line 2.*partner"),
        ("one,other\nfork,knife\n", "pairs.csv, line 2.*word"),
        ("word,partner\nfork,knife\nfork,Fork\n", "pairs.csv, line 3.* must be two different"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path, content, message):
    table = tmp_path / "pairs.csv"
    if content is not None:
        table.write_text(content)
    maker = SwappedWords(file=table)  # opened when training begins: tests of a checkpoint need none
    with pytest.raises(DataError, match=message):
        maker.from_training([item("a fork")])


@pytest.mark.parametrize(
    "pairs", [[["clock"]], [["a", "b", "c"]], [["clock", ""]], [["clock", 3]], [["Cat", "cat"]]]
)
def test_a_pair_is_two_words(pairs):
    with pytest.raises(ConfigError, match=r"pairs has .*; give two different words a pair"):
        SwappedWords(pairs)


def test_no_pairs_at_all_are_refused():
    with pytest.raises(ConfigError, match="neither pairs nor a file"):
        SwappedWords()


@pytest.mark.parametrize("maker", [SwappedWords(FILMS), CooccurringObjects()])
def test_training_in_which_nothing_can_be_swapped_is_refused(maker):
    with pytest.raises(DataError, match="nothing to swap in the 2 items of training, the first of"):
        maker.from_training([item("nobody"), item("he thinks")])


def test_each_view_has_the_false_texts_of_its_own_reply():
    talk = Conversation(
        (
            Turn("user", (Shown(0), "first?")),
            Turn("assistant", ("a clock",), learned=True),
            Turn("user", (Shown(1), "second?")),
            Turn("assistant", ("nobody",), learned=True),
            Turn("user", (Shown(0), "third?")),
            Turn("assistant", ("yes",), learned=True),
        ),
        tuple(Medium(medium_id=name, source=Path(name)) for name in "ab"),
    )
    found = SwappedWords(FILMS).from_training([item("a clock")])
    assert found(replace(item("no"), conversation=talk)) == (
        (("first?", "a mirror"),),
        (),
        (("third?", "no"),),
    )


def test_what_is_made_can_be_sent_to_workers(tmp_path):
    for maker in (SwappedWords(FILMS), CooccurringObjects()):
        asked = item("a cat and a clock")
        made = maker.from_training([asked, item("a cat on a mirror")])
        assert pickle.loads(pickle.dumps(made))(asked) == made(asked)


# --- objects that often come together

TOGETHER = [
    "a dog and a ball",
    "a dog with a ball",
    "a dog and a cat",
    "a car",
    "a car",
    "a car",
    "a car",
]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        # a dog brings the ball, of which nothing is said; a cat has come with the dog alone
        ("a dog and a cat", ["a dog and a ball"]),
        # without others the most frequent object stands in
        ("a boat", ["a car"]),
        ("two boats", ["two cars"]),
        ("nothing at all", []),
    ],
)
def test_an_object_is_swapped_for_what_most_often_comes_with_the_others(reply, expected):
    found = false_replies(CooccurringObjects(), reply, *TOGETHER)
    assert {*expected} <= {*found}
    assert bool(found) == bool(expected)


def test_objects_are_named_by_the_vocabulary_given(tmp_path):
    words = tmp_path / "objects.txt"
    words.write_text("gizmo: widget\nsprocket\nflange\n")
    maker = CooccurringObjects(words)
    training = ["a gizmo and a sprocket", "a widget by a sprocket", "a gizmo and a flange"]
    assert false_replies(maker, "a widget and a flange", *training) == [
        "a sprocket and a flange",
        "a widget and a sprocket",
    ]


@given(st.lists(st.sampled_from(["dog", "cat", "ball", "car", "boat"]), min_size=1, unique=True))
def test_what_is_put_in_is_not_in_the_caption_and_was_seen_in_training(objects):
    caption = " and ".join(f"a {name}" for name in objects)
    for text in false_replies(CooccurringObjects(), caption, *TOGETHER):
        (new,) = {*text.split()} - {*caption.split()}
        assert new in ("dog", "cat", "ball", "car")


# --- a model's own wrong answers


def prediction(name, truth, *said, ranked=(), prompt="what?"):
    answers, ranking = ([Answer(text, -1.0) for text in texts] for texts in (said, ranked))
    return Prediction(name, "v", "qa", prompt, truth, answers, ranking, [truth, f"the {truth}"])


@pytest.fixture
def run(tmp_path):
    rows = [
        prediction("a", "cat", "dog", "Dog", "cow", "cat", "bird"),
        prediction("b", "cat", "the cat", "dog"),
        prediction("c", "cat", "", ranked=["cow", "cat", "dog"]),
        prediction("elsewhere", "cat", "dog"),
    ]
    write_predictions(tmp_path / "predictions.jsonl", rows)
    return tmp_path


def test_wrong_answers_before_the_first_right_one_are_false_of_their_item(run):
    items = [item("cat", "what?", name) for name in "abcd"]
    found = OwnAnswers(run).from_training(items)
    said = [[text for _, text in found(one)[0]] for one in items]
    assert said == [["dog", "cow"], [], ["cow"], []]
    assert found(items[0])[0][0] == ("what?", "dog")
    assert OwnAnswers(run, at_most=1).from_training(items)(items[0]) == ((("what?", "dog"),),)
    assert pickle.loads(pickle.dumps(found))(items[0]) == found(items[0])


def test_predictions_of_other_items_are_refused(run):
    with pytest.raises(
        DataError, match=r"no answer to any of the 1 items of training, such as 'z'"
    ):
        OwnAnswers(run).from_training([item("cat", "what?", "z")])
    with pytest.raises(DataError, match=r"item 'a' was asked 'what\?', but in training it is 'who"):
        OwnAnswers(run).from_training([item("cat", "who?", "a")])


def test_predictions_without_a_wrong_answer_are_refused(run):
    with pytest.raises(DataError, match="no wrong answer to an item of training"):
        OwnAnswers(run).from_training([item("cat", "what?", "b")])


def test_training_without_predictions_is_refused():
    maker = OwnAnswers(None)  # a test of a checkpoint composes it, too
    with pytest.raises(ConfigError, match=r"data.false_texts.predictions is not given; give the"):
        maker.from_training([item("cat")])


def test_predictions_that_are_not_there_are_refused_when_training_begins(tmp_path):
    maker = OwnAnswers(tmp_path / "gone")
    with pytest.raises(DataError, match="gone does not exist; give the folder of a run"):
        maker.from_training([item("cat")])


# --- the remedies


def compose_train(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=["data.root=.", *overrides])


REMEDIES = {
    "hard_negatives": ("film", SwappedWords),
    "hard_negatives_both": ("both", SwappedWords),
    "hard_negatives_cooccurring": ("film", CooccurringObjects),
    "hard_negatives_own_answers": ("film", OwnAnswers),
}


@pytest.mark.parametrize("name", REMEDIES)
@pytest.mark.parametrize(
    "experiment",
    [["ablation", "arm=one_level"], ["ablation", "arm=mma_code"], ["ablation_alignment"]],
)
def test_a_remedy_is_laid_over_arms_and_stage_1(name, experiment):
    cfg = compose_train(f"experiment={experiment[0]}", *experiment[1:], f"remedy={name}")
    sides, maker = REMEDIES[name]
    assert isinstance(instantiate(cfg.data.false_texts), maker)
    assert instantiate(cfg.alignment.hard_negatives).sides == sides


def test_the_remedys_pairs_are_those_of_the_controlled_films():
    cfg = compose_train("experiment=ablation", "remedy=hard_negatives")
    assert [tuple(pair) for pair in cfg.data.false_texts.pairs] == list(PAIRS)


# --- on their way to the alignment


@pytest.fixture
def films(tmp_path, make_clip):
    """Two films asked about for training, and one for the test."""
    for split, rows in {
        "train": [("a", "what?", "a clock"), ("b", "a cat?", "no")],
        "test": [("c", "what?", "a clock")],
    }.items():
        for film, _, _ in rows:
            make_clip(f"{film}.mp4", 3)
        lines = [{"id": f, "video": f"{f}.mp4", "prompt": p, "answer": a} for f, p, a in rows]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def data_of(root, **settings):
    sizes = {"num_frames": 2, "image_size": 16, "batch_size": 2, "num_workers": 0, "index": None}
    return VideoDataModule(OwnReader(), root, **sizes, **settings)


def test_batches_of_training_bring_false_texts_and_others_do_not(films):
    data = data_of(films, false_texts=SwappedWords(FILMS))
    (batch,) = data.train_dataloader()
    found = dict(zip(batch.item_id, batch.false_of_views, strict=True))
    assert found == {"a": (("what?", "a mirror"),), "b": (("a cat?", "yes"),)}
    assert batch.rows([1]).false_of_views == [found[batch.item_id[1]]]
    (tested,) = data.test_dataloader()
    assert tested.false_texts is None
    assert tested.false_of_views == [()]
    (without,) = data_of(films).train_dataloader()
    assert without.false_texts is None


def test_a_mix_makes_false_texts_of_all_sets_or_of_those_that_say_so(films):
    def found(all_of_them, **own):
        sets = {"one": data_of(films, **own), "two": data_of(films)}
        mixed = MixedDataModule(sets, image_size=16, num_workers=0, false_texts=all_of_them)
        batches = [*mixed.train_dataloader()]
        names = [name for batch in batches for name in batch.item_id]
        false = [texts for batch in batches for texts in batch.false_of_views]
        return {name for name, texts in zip(names, false, strict=True) if texts}

    assert found(SwappedWords(FILMS)) == {"one/a", "one/b", "two/a", "two/b"}
    assert found(None, false_texts=SwappedWords(FILMS)) == {"one/a", "one/b"}
    assert found(None) == set()


def test_a_batch_refuses_false_texts_of_other_views(films):
    (batch,) = data_of(films).train_dataloader()
    with pytest.raises(ValueError, match="false_texts must have C=2 entries, got 1"):
        replace(batch, false_texts=[((("", "no"),),)])
    with pytest.raises(ValueError, match=r"false_texts .* views"):
        replace(batch, false_texts=[(), ()])
