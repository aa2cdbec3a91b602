from mmavlm.core.interfaces import Answer
from mmavlm.metrics import Prediction
from mmavlm.run.report import confusions


def prediction(item, truth, answer):
    return Prediction(item, item, "animal", "what?", truth, [], [Answer(answer, -1.0)], [truth])


def test_truths_that_training_has_no_class_of_are_counted_beside_the_matrix():
    rows = [prediction("1", "cat", "Cat"), prediction("2", "dog", "Cat"), prediction("3", "", "x")]
    (shown,) = confusions(rows, {"animal": ["Cat", "cat ", "bird"]})
    assert shown.classes == ["Cat", "bird"]
    assert shown.counts.tolist() == [[1, 0, 0], [0, 0, 0]]
    assert shown.left_out == 2
