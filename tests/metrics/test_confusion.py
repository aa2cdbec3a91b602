import pytest

from mmavlm.core.errors import ConfigError
from mmavlm.metrics.confusion import confusion, unlike


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
