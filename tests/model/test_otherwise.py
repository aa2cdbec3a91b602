import pytest
import torch

from mmavlm.model.explain import explain
from mmavlm.model.otherwise import SHUFFLED, VIEWS, WITHOUT_FILM, otherwise
from support import random_batch, tiny_backbone

ANSWERS = ["comedy", "a long answer"]


@pytest.fixture(scope="module")
def model():
    return tiny_backbone().eval()


@torch.no_grad()
def test_an_answer_has_the_probability_that_the_model_gives_it_of_each_view(model):
    batch = random_batch((5, 3))
    for name in VIEWS:
        view = VIEWS[name](batch)
        scores = model.rank(view, ANSWERS)
        for row, found in enumerate(otherwise(model, batch, ANSWERS)):
            (other,) = [o for o in found if o.view == name]
            assert other.log_prob == pytest.approx(float(scores[row, row]), abs=1e-5)


def test_the_views_are_answered_as_the_film_was(model):
    batch, seen = random_batch((5, 3)), []

    def say(view):
        seen.append(view)
        return ["one", "two"]

    for row, found in enumerate(otherwise(model, batch, ANSWERS, say)):
        assert {other.answer for other in found} == {("one", "two")[row]}
    assert [view.media_rows for view in seen] == [[(), ()], batch.media_rows]


def test_an_explanation_holds_both_views_and_its_numbers_are_plain(model):
    (explained,) = explain(model, random_batch((4,)), ["comedy"], stretches=2)
    assert [other.view for other in explained.otherwise] == [WITHOUT_FILM, SHUFFLED]
    told = explained.as_dict()["otherwise"]
    assert [set(row) for row in told] == [{"view", "answer", "log_prob"}] * 2


def test_a_film_of_one_frame_has_no_other_order(model):
    (explained,) = explain(model, random_batch((1,)), ["comedy"], stretches=0)
    assert [other.view for other in explained.otherwise] == [WITHOUT_FILM]
