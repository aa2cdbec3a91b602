"""False answers beside the true ones of training."""

from pathlib import Path

import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.interfaces import Answer
from mmavlm.core.items import Item
from mmavlm.core.options import Options
from mmavlm.metrics import Prediction, write_predictions
from mmavlm.stages.rejected import false_answers


def item(name, target, prompt="what is it?", task="qa", **rest):
    return Item.question(
        item_id=name, video_id="v", source=Path("v.mp4"), prompt=prompt, target=target, task=task,
        **rest,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "false"), [("yes", "no"), ("No", "Yes"), ("Yes.", "No."), ("NO", "Yes")]
)
def test_yes_is_false_where_no_is_true(target, false):
    assert false_answers([item("a", target)]) == {"a": false}


def test_an_annotation_says_what_is_false():
    assert false_answers([item("a", "yes", meta={"rejected": "a cat"})]) == {"a": "a cat"}
    with pytest.raises(DataError, match=r"item 'a' has rejected=3; expected a text"):
        false_answers([item("a", "yes", meta={"rejected": 3})])


def test_of_classes_the_usual_answer_to_the_question_is_false():
    asked = [item(str(n), target) for n, target in enumerate(["run", "sit", "sit", "jump"])]
    asked.append(item("other", "jump", prompt="where?"))
    classes = {"qa": ["sit", "jump", "run", "fly"]}
    found = false_answers(asked, classes)
    assert found["0"] == found["3"] == "sit"
    assert found["1"] in ("run", "jump")  # each as usual as the other
    assert found["other"] in ("sit", "run", "fly")
    assert found == false_answers(asked, classes)


def test_what_is_drawn_is_any_class_but_the_true_ones():
    asked = [item(str(n), "A", prompt=str(n), references=("A", "b")) for n in range(40)]
    assert {*false_answers(asked, {"qa": ["a", "B", "c", "d"]}).values()} == {"c", "d"}


def test_of_a_question_with_options_another_one_is_false():
    options = Options(("red", "blue", "green"))
    asked = [item(str(n), "B", prompt=str(n), options=options) for n in range(20)]
    assert {*false_answers(asked).values()} == {"A", "C"}


def test_open_answers_have_the_usual_one_or_none():
    asked = [item("a", "a dog"), item("b", "a cat"), item("c", "a cat")]
    asked += [item("alone", "a film", prompt="?"), item("unknown", "")]
    assert false_answers(asked) == {"a": "a cat", "unknown": "a cat"}


def test_a_text_that_is_true_of_one_item_alone_is_false_of_none():
    assert false_answers([item(str(n), f"caption {n}", prompt="") for n in range(4)]) == {}


def test_own_wrong_answers_are_false_and_nothing_else(tmp_path):
    rows = [
        Prediction(name, "v", "qa", "?", "yes", [Answer(said, 0.0)], [], ["yes"])
        for name, said in (("a", "no"), ("b", "yes"), ("c", "a cat"), ("elsewhere", "no"))
    ]
    write_predictions(tmp_path / "own.jsonl", rows)
    asked = [item(name, "yes") for name in "abcd"]
    assert false_answers(asked, own=tmp_path / "own.jsonl") == {"a": "no", "c": "a cat"}
    with pytest.raises(
        ConfigError, match=r"false_answers: .*does not exist; give the folder of a run"
    ):
        false_answers(asked, own=tmp_path / "missing.jsonl")
