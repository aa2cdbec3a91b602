import pytest
from predicted import predicted

from mmavlm.core.errors import ConfigError
from mmavlm.metrics.confusion import ConfusionCounts, confusion, unlike


def test_confusion_counts_answers_by_truth_with_others_last():
    truths = ["comedy", "Comedy", "action", "action", "action"]
    answers = ["comedy", "action", "ACTION ", "western", ""]
    counts = confusion(truths, answers, ["comedy", "action", "drama"])
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 2], [0, 0, 0, 0]]


def test_confusion_of_nothing_is_all_zero():
    assert confusion([], [], ["a", "b"]).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_what_is_truly_none_of_the_classes_is_not_counted():
    counts = confusion(["comedy", "western"], ["comedy", "comedy"], ["comedy"])
    assert counts.tolist() == [[1, 0]]


def test_of_classes_that_read_alike_the_first_stands():
    assert unlike(["dog", "Cat", "cat ", "bird", "DOG"]) == ["dog", "Cat", "bird"]


def test_classes_that_are_the_same_text_are_refused():
    with pytest.raises(ConfigError, match=r"\['comedy', 'Comedy'\] hold the same text twice"):
        confusion([], [], ["comedy", "Comedy"])


def test_unequal_numbers_of_truths_and_answers_are_refused():
    with pytest.raises(ValueError, match="got 2 truths but 1 answers"):
        confusion(["a", "a"], ["a"], ["a"])


def asked(number, answer, truth, task="genre"):
    return predicted(number, [answer] if answer else [], truth, task=task)


def test_counts_in_parts_are_those_of_all_items_and_an_item_counts_once():
    rows = [
        asked(0, "comedy", "Comedy"),
        asked(1, "action", "comedy"),
        asked(2, "western", "action"),
        asked(3, "comedy", "western"),
        asked(4, "", "action"),
        asked(5, "yes", "yes", task="open"),
    ]
    counts = ConfusionCounts({"genre": ["comedy", "action", "Action"], "scene": ["indoor"]})
    counts.update(rows[:2])
    counts.update(rows[1:])
    found = counts.compute()
    assert list(found) == ["genre"]
    assert found["genre"].counts.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert found["genre"].left_out == 1


def test_counts_of_nothing_are_of_no_task():
    assert ConfusionCounts({"genre": ["comedy"]}).compute() == {}
