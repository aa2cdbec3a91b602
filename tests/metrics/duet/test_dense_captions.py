"""Segments and captions told of films."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pycocoevalcap", reason="needs the extra [captions]")

from duet_films import truth, watched
from pycocoevalcap.cider.cider import Cider

from mmavlm.metrics import caption_words
from mmavlm.metrics.duet import dense_captions as module
from mmavlm.metrics.duet.dense_captions import (
    dense_cider,
    found_shares,
    left_out,
    segment_ious,
    soda,
    told_segments,
)
from mmavlm.metrics.duet.film_metrics import DenseCaptions
from mmavlm.metrics.duet.films import paired
from mmavlm.metrics.duet.watched import Event

JAVA = caption_words.java()
ONE, TWO = "cut the red onion", "fry two eggs slowly"
TRUE = truth("q0", (1, 5, ONE), (6, 9, TWO))
TOLD = watched("q0", replies=((3, ONE), (5, ONE), (9, TWO)), queries=((1, "tell me"),))


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """METEOR takes ten seconds to start: tests say when they need Java."""
    monkeypatch.setattr(module, "java", lambda: None)


def test_equal_captions_in_a_row_are_one_and_the_first_begins_with_the_question():
    assert told_segments(TOLD, TRUE) == [Event(1.0, 5.0, ONE), Event(5.0, 9.0, TWO)]


def test_a_lone_reply_is_a_caption():
    assert told_segments(watched("q0", replies=((3, "a"),)), TRUE) == [Event(0.0, 3.0, "a")]
    asked_twice = watched("q0", replies=((3, "a"),), queries=((1, "x"), (2, "y"), (8, "z")))
    assert told_segments(asked_twice, TRUE) == [Event(2.0, 3.0, "a")]
    assert told_segments(watched("q0", replies=((3, "a"),), queries=()), TRUE)[0].start_s == 0


def test_a_caption_that_comes_again_after_another_is_told_again():
    again = watched("q0", replies=((2, "a"), (3, "b"), (4, "a")))
    assert [(e.start_s, e.end_s) for e in told_segments(again, TRUE)] == [(0, 2), (2, 3), (3, 4)]


def test_ious_of_segments_are_those_worked_out_by_hand():
    ious = segment_ious(told_segments(TOLD, TRUE), TRUE.events)
    assert ious.tolist() == [[1, 0], [0, 3 / 4]]
    assert segment_ious([Event(2, 2)], [Event(2, 2)]).tolist() == [[0]]


segments = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 9)).map(lambda s: Event(s[0], s[0] + s[1])),
    min_size=1, max_size=5,
)  # fmt: skip


@given(segments, segments)
def test_ious_and_shares_are_the_published_ones(told, true):
    def published(a, b):
        inner = max(0, min(a.end_s, b.end_s) - max(a.start_s, b.start_s))
        hull = max(a.end_s, b.end_s) - min(a.start_s, b.start_s)
        both = a.end_s - a.start_s + b.end_s - b.start_s
        return inner / (min(hull, both) + 1e-8)

    def share(rows, level):
        return sum(any(iou > level for iou in row) for row in rows) / len(rows)

    ious = segment_ious(told, true)
    rows = [[published(a, b) for b in true] for a in told]
    assert ious.flatten().tolist() == pytest.approx([iou for row in rows for iou in row], abs=1e-7)
    columns = list(zip(*rows, strict=True))
    # where an IoU is the level itself, the published 1e-8 decides
    if not any(abs(iou - level) < 1e-6 for row in rows for iou in row for level in module.LEVELS):
        expected = [sum(share(of, level) for level in module.LEVELS) / 4 for of in (rows, columns)]
        assert found_shares(ious)[:2] == pytest.approx(expected)


def test_shares_of_segments_are_those_worked_out_by_hand():
    # two of two at .3, .5 and .7, one at .9
    assert found_shares(torch.tensor([[1, 0], [0, 0.75]]).double()) == (0.875, 0.875, 0.875)
    # the first covers both true ones a little, the second none
    shares = found_shares(torch.tensor([[0.4, 0.6], [0, 0]]).double())
    assert shares == (0.25, pytest.approx(0.375), pytest.approx(0.3))
    assert found_shares(torch.zeros(0, 3)) == (0, 0, 0)


def test_cider_of_a_film_is_that_worked_out_by_hand():
    # all n-grams are of one item of two, and told as they are true: 10 each; at .9 the second
    # caption has no segment, and scores 0
    ious = torch.tensor([[1, 0], [0, 0.75]]).double()
    assert dense_cider(ious, [ONE, TWO], [ONE, TWO]) == pytest.approx((10 + 10 + 10 + 5) / 4)


def test_a_caption_without_a_segment_scores_what_random_letters_would():
    ious = torch.tensor([[0.95, 0], [0, 0.92], [0.1, 0.2]]).double()
    told, true = ["cut an onion", "fry the eggs slowly", "a dog"], [ONE, TWO]
    items = {0: [ONE], 1: [TWO], 2: ["qzxw vbgh"]}
    published, each = Cider().compute_score(items, {n: [text] for n, text in enumerate(told)})
    assert each[2] == 0
    assert dense_cider(ious, told, true) == pytest.approx(published)


def test_captions_that_meet_no_true_segment_score_0():
    assert dense_cider(torch.zeros(2, 2), ["a", "b"], [ONE, TWO]) == 0
    assert dense_cider(torch.ones(1, 1), ["a"], [""]) == 0


@given(st.integers(0, 4), st.integers(1, 4), st.randoms(use_true_random=False))
def test_soda_is_the_best_of_all_matchings_that_keep_the_order(told, true, random):
    values = [[random.random() for _ in range(true)] for _ in range(told)]
    best = max(
        sum(values[i][j] for i, j in zip(rows, columns, strict=True))
        for k in range(min(told, true) + 1)
        for rows in combinations(range(told), k)
        for columns in combinations(range(true), k)
    )
    found = soda(torch.tensor(values, dtype=torch.float64).view(told, true))
    assert found == pytest.approx(2 * best / (told + true))


def test_soda_is_that_worked_out_by_hand():
    # .9 + 0 or .8, for .9 and .8 cross; precision .9/2, recall .9/3
    values = torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.1, 0.0]]).double()
    assert soda(values) == pytest.approx(2 * 0.45 * 0.3 / (0.45 + 0.3))


def scores(*films, truths=(TRUE,)):
    both = paired(films, truths)
    metric = DenseCaptions()
    metric.update(both.watched, both.truths)
    return metric.compute()


def test_the_numbers_of_a_film_are_those_worked_out_by_hand():
    values = scores(TOLD)
    assert values["segment_f1"] == 0.875
    assert values["dense_cider_plain"] == pytest.approx(8.75)
    assert values["soda_rouge_l_plain"] == pytest.approx((1 + 0.75) / 2)
    assert not {"soda_c", "dense_cider"} & values.keys()


def test_a_question_that_was_not_watched_counts_as_0():
    values = scores(TOLD, truths=[TRUE, truth("q1", (0, 3, ONE))])
    assert values["soda_rouge_l_plain"] == pytest.approx(0.875 / 2)
    assert (values["segment_f1_low"], values["segment_f1_high"]) == (0, 0.875)
    assert (values["count"], values["missing"]) == (2, 1)


def test_a_model_that_says_nothing_scores_0():
    values = scores(watched("q0"))
    assert values["segment_f1"] == values["dense_cider_plain"] == 0
    assert values["soda_rouge_l_plain"] == 0


def test_what_is_left_out_is_told_with_its_remedy(monkeypatch):
    assert "dense_cider and soda_c are left out, because there is no `java`" in left_out()
    monkeypatch.setattr(module, "library", lambda: None)
    assert "pip install" in left_out()
    assert set(scores(TOLD)) >= {"segment_f1", "count"}
    assert "dense_cider_plain" not in scores(TOLD)


@pytest.mark.slow
@pytest.mark.skipif(JAVA is None, reason="there is no java command")
def test_with_java_captions_told_word_for_word_have_a_meteor_of_1(monkeypatch):
    monkeypatch.setattr(module, "java", lambda: JAVA)
    assert left_out() is None
    values = scores(TOLD)
    assert values["soda_c"] == pytest.approx(0.875)
    assert values["dense_cider"] == pytest.approx(8.75)
    other = watched("q0", replies=((5, "slice an onion"), (9, TWO)), queries=((1, "tell me"),))
    assert 0.375 < scores(other)["soda_c"] < 0.875
