"""Highlights of films: clips, average precision, HIT@1."""

import pytest
import torch
from duet_films import watched
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.metrics import wilson_interval
from mmavlm.metrics.duet.choosing import Chosen
from mmavlm.metrics.duet.film_metrics import Highlights
from mmavlm.metrics.duet.films import paired
from mmavlm.metrics.duet.highlights import (
    average_precision,
    choose_window,
    clip_scores,
    film_highlights,
)
from mmavlm.metrics.duet.watched import HighlightTruth

TRUTH = HighlightTruth("q0", "v0", 8.0, (1, 3), ((4, 3, 2), (2, 4, 0)))
FILM = watched("q0", [0.1, 0.1, 0.4, 0.3, 0.2, 0.2, 0.6, 0.6])  # clips: .2, .7, .4, 1.2


def published_ap(labels, scores):
    """The published evaluator's formula: a precision-recall curve, its running maximum, a mean."""
    if sum(labels) in (0, len(labels)):
        return float(sum(labels) > 0)
    precision, recall = [], []
    for threshold in sorted(set(scores)):
        kept = [label for label, score in zip(labels, scores, strict=True) if score >= threshold]
        precision.append(sum(kept) / len(kept))
        recall.append(sum(kept) / sum(labels))
    precision, recall = [*precision, 1.0], [*recall, 0.0]
    for i in range(1, len(precision)):
        precision[i] = max(precision[i - 1], precision[i])
    changes = [p for p, r, after in zip(precision, recall, recall[1:], strict=False) if r != after]
    return sum(changes) / len(changes)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=20))
def test_average_precision_is_the_published_one_also_where_scores_are_equal(rows):
    labels, scores = zip(*rows, strict=True)
    found = average_precision(torch.tensor(scores).double(), torch.tensor([labels]))
    assert found.item() == pytest.approx(published_ap(labels, scores))


def test_average_precision_is_that_worked_out_by_hand():
    scores = torch.tensor([3.0, 2, 2, 1]).double()
    labels = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    # the first: 0 of 1, 1 of 3, then 2 of 4; a later precision of 1/2 counts for the earlier 1/3
    assert average_precision(scores, labels).tolist() == [0.5, 1, 0, 1]


def test_scores_of_a_film_are_those_worked_out_by_hand():
    assert clip_scores(FILM, 4, 0).tolist() == pytest.approx([0.2, 0.7, 0.4, 1.2])
    # clips in order 3, 1, 2, 0. fair: both of two, both of two, the second (1/2);
    # good: the second, both, none; very good: the second, the first, none
    values = film_highlights(FILM, TRUTH, 0).tolist()
    assert values == pytest.approx([2.5 / 3, 0.5, 0.5, 1, 1, 1])


def test_the_first_of_equally_good_clips_is_the_hit():
    level = watched("q0", [0.1] * 8)
    assert film_highlights(level, TRUTH, 3)[3:].tolist() == [0, 0, 0]
    first = HighlightTruth("q0", "v0", 8.0, (0,), ((2, 0, 0),))
    assert film_highlights(level, first, 3)[3:].tolist() == [1, 0, 0]


def test_frames_behind_the_last_clip_and_clips_without_frames_count_for_nothing():
    scores = clip_scores(watched("q", [1, 1, 1, 1, 1]), 2, 0)  # 5 s, of which 4 are clips
    assert scores.tolist() == [2, 2]
    assert clip_scores(watched("q", [1, 1, 1]), 4, 0).tolist() == [2, 1, 0, 0]
    assert clip_scores(watched("q"), 2, 1).tolist() == [0, 0]


def test_smoothing_moves_a_peak_into_the_clips_beside_it():
    film = watched("q", [0, 0, 0, 3, 0, 0])
    assert clip_scores(film, 3, 1).tolist() == [0, 2, 1]


def test_a_question_that_was_not_watched_counts_as_0():
    other = HighlightTruth("q1", "v1", 8.0, (0,), ((4, 4, 4),))
    both = paired([FILM], [TRUTH, other])
    metric = Highlights(Chosen(0))
    metric.update(both.watched, both.truths)
    values = metric.compute()
    assert (values["count"], values["missing"]) == (2, 1)
    assert values["very_good_map"] == pytest.approx(0.25)
    assert values["very_good_hit1"] == 0.5
    bounds = values["very_good_hit1_low"], values["very_good_hit1_high"]
    assert bounds == wilson_interval(1, 2)
    assert (values["very_good_map_low"], values["very_good_map_high"]) == (0, 0.5)


def test_a_film_shorter_than_a_clip_has_no_highlight():
    assert film_highlights(FILM, HighlightTruth("q0", "v", 1.5, (), ()), 0).sum() == 0


def test_the_window_with_the_largest_map_on_validation_is_chosen():
    chosen = choose_window([FILM], [TRUTH], split="val", windows=[2, 0, 1])
    values = [film_highlights(FILM, TRUTH, window)[2].item() for window in (2, 0, 1)]
    assert chosen == Chosen((2, 0, 1)[values.index(max(values))], "val", "very_good_map",
                            max(values), 1)  # fmt: skip
    hit = choose_window([FILM], [TRUTH], split="val", by="good_hit1", windows=[0])
    assert (hit.by, hit.value) == ("good_hit1", 1)
    with pytest.raises(ConfigError, match="never on those of the test"):
        choose_window([FILM], [TRUTH], split="test")


def test_a_film_without_scores_is_refused():
    with pytest.raises(DataError, match="no scores of the head 'saliency', but of relevance"):
        film_highlights(FILM, TRUTH, 0, "saliency")
