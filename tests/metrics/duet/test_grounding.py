"""Curves over frames, and IoU of what they find."""

import pytest
import torch
from duet_films import truth, watched
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.metrics import wilson_interval
from mmavlm.metrics.duet.choosing import Chosen, best_of, check_apart
from mmavlm.metrics.duet.curves import best_run, merged, moving_mean, span_iou
from mmavlm.metrics.duet.film_metrics import Grounding
from mmavlm.metrics.duet.films import paired
from mmavlm.metrics.duet.grounding import Cut, choose_cut, grounding_ious

numbers = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def published_iou(film, spans, window, threshold):
    """The published evaluator's formula, frame by frame, for a curve that is not constant."""
    curve, n = film.scores["relevance"], len(film.times_s)
    smooth = []
    for i in range(n):
        near = curve[max(0, i - window) : min(n, i + window + 1)]
        smooth.append(sum(near) / len(near))
    low, high = min(smooth), max(smooth)
    found = [(value - low) / (high - low) >= threshold for value in smooth]
    true = [any(s <= t <= e for s, e in spans) for t in film.times_s]
    both = sum(f and t for f, t in zip(found, true, strict=True))
    return both / sum(f or t for f, t in zip(found, true, strict=True))


@given(numbers, st.integers(0, 40))
def test_a_moving_mean_is_the_mean_of_the_neighbours_there_are(curve, radius):
    expected = [
        sum(near) / len(near)
        for i in range(len(curve))
        if (near := curve[max(0, i - radius) : i + radius + 1])
    ]
    found = moving_mean(torch.tensor(curve, dtype=torch.float64), radius)
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.0, 1.0])
def test_a_constant_curve_stays_one_and_finds_nothing(value):
    film = watched("q", [value] * 7)
    ious = grounding_ious(film, truth("q", (0, 6)), range(5), [0.3, 0.01])
    assert ious.abs().max() == 0


@given(numbers, st.floats(0, 1))
def test_the_best_run_is_that_of_a_search_through_all(curve, threshold):
    runs, start = [], None
    for i, value in enumerate([*curve, -1.0]):
        if value >= threshold and start is None:
            start = i
        elif value < threshold and start is not None:
            runs.append((start, i - 1))
            start = None
    found = best_run(torch.tensor(curve, dtype=torch.float64),
                     torch.tensor(threshold, dtype=torch.float64))  # fmt: skip
    first, last = map(int, found)
    if not runs:
        assert (first, last) == (-1, -1)
        return
    gain = {run: sum(v - threshold for v in curve[run[0] : run[1] + 1]) for run in runs}
    assert (first, last) in gain
    assert gain[first, last] == pytest.approx(max(gain.values()))


def test_of_equal_runs_the_earliest_is_best():
    curve = torch.tensor([[0.0, 1, 0, 1, 0], [0, 0.5, 0, 1, 1]], dtype=torch.float64)
    first, last = best_run(curve, torch.tensor([0.5, 0.5]))
    assert (first.tolist(), last.tolist()) == ([1, 3], [1, 4])


def test_spans_that_overlap_or_are_out_of_order_are_one():
    assert merged([(5, 7), (0, 2), (1, 3), (3, 4)]) == [(0, 4), (5, 7)]


def test_span_iou_is_that_worked_out_by_hand():
    starts, ends = torch.tensor([[2.0, 0.0], [9.0, 3.0]]).double().unbind()
    # 2 to 9 beside 0–4 and 8–12: 3 s of 2 + 7 + 3; 0 to 3: 3 s of 8
    assert span_iou(starts, ends, [(8, 12), (0, 4)]).tolist() == [3 / 12, 3 / 8]
    assert span_iou(starts[:1], starts[:1], [(2, 2)]).tolist() == [0]


def test_iou_of_masks_and_of_spans_are_those_worked_out_by_hand():
    # scaled: 0 0 1 1 0 .5 0 0, of which 2, 3 and 5 reach .5; the best run is 2 to 3, till 4 s
    film = watched("q", [0.2, 0.2, 0.6, 0.6, 0.2, 0.4, 0.2, 0.2])
    masks, spans = grounding_ious(film, truth("q", (1, 5)), [0], [0.5]).flatten(1)
    assert masks.tolist() == [3 / 5]  # true are 1, 2, 3, 4, 5
    assert spans.tolist() == [2 / 4]


def test_the_last_frame_is_seen_until_the_film_ends():
    film = watched("q", [0, 0, 1], fps=0.5)  # frames at 0, 2, 4 s of 6 s
    assert grounding_ious(film, truth("q", (4, 6)), [0], [0.5])[1].item() == 1


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.integers(0, 6),
       st.sampled_from([0.3, 0.5, 0.7]), st.integers(0, 9), st.integers(0, 9))  # fmt: skip
def test_mask_iou_is_the_published_one(curve, window, threshold, start, length):
    film = watched("q", curve, fps=2.0)
    start = min(start, (len(curve) - 1) / 2)
    span = (start, start + length / 2)
    smooth = moving_mean(torch.tensor(curve, dtype=torch.float64), window)
    low, high = smooth.aminmax()
    # where rounding decides, either is right
    near = ((smooth - low) / (high - low).clamp(min=1e-6) - threshold).abs().min() < 1e-9
    if high - low < 1e-5 or near:
        return
    found = grounding_ious(film, truth("q", span), [window], [threshold])[0]
    assert found.item() == pytest.approx(published_iou(film, [span], window, threshold))


def three_questions():
    """IoUs of masks 1, .5 and of a film that was not watched; all of their own film."""
    films = [watched("q0", [0, 1, 1, 0]), watched("q1", [0, 1, 1, 0])]
    truths = [truth("q0", (1, 2)), truth("q1", (1, 1)), truth("q2", (0, 3))]
    return films, truths


def test_shares_and_means_are_over_all_questions_also_those_not_watched():
    films, truths = three_questions()
    both = paired(films, truths)
    assert (both.missing, both.unasked) == (["q2"], ())
    metric = Grounding(Chosen(Cut(0, 0.5)))
    metric.update(both.watched, both.truths)
    values = metric.compute()
    assert values["miou"] == pytest.approx((1 + 0.5 + 0) / 3)
    shares = [values[f"iou{level}"] for level in (30, 50, 70)]
    assert shares == [pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert (values["iou70_low"], values["iou70_high"]) == wilson_interval(1, 3)
    assert values["miou_low"] < values["miou"] < values["miou_high"]
    assert (values["count"], values["missing"]) == (3, 1)
    # spans: 1 to 3 s beside 1–2 and the instant at 1
    assert values["span_miou"] == pytest.approx((0.5 + 0 + 0) / 3)


def test_a_question_taken_twice_counts_once_and_batches_do_not_matter():
    films, truths = three_questions()
    at_once, by_one = (Grounding(Chosen(Cut(0, 0.5))) for _ in range(2))
    at_once.update([*films, None], truths)
    for i in (2, 1, 0, 1):
        by_one.update([*films, None][i : i + 1], truths[i : i + 1])
    assert by_one.compute() == at_once.compute()


def test_the_cut_with_the_largest_mean_iou_on_validation_is_chosen():
    films, truths = three_questions()
    chosen = choose_cut(films, truths[:2], split="val", windows=[0, 1], thresholds=[0.3, 0.9])
    assert chosen == Chosen(Cut(0, 0.3), "val", "miou", 0.75, 2)  # the first of equal ones


def test_the_cut_chosen_is_the_best_of_metrics_computed_one_by_one():
    films = [watched("q0", [0.1, 0.5, 0.3, 0.9, 0.2]), watched("q1", [0.9, 0.2, 0.6, 0.7, 0.1])]
    truths = [truth("q0", (2, 4)), truth("q1", (2, 3))]
    grid = {"windows": [0, 1, 2], "thresholds": [0.3, 0.5, 0.7]}
    for by in ("miou", "span_miou"):
        chosen = choose_cut(films, truths, split="val", by=by, **grid)
        values = []
        for window in grid["windows"]:
            for threshold in grid["thresholds"]:
                metric = Grounding(Chosen(Cut(window, threshold)))
                metric.update(films, truths)
                values.append(metric.compute()[by])
        assert chosen.value == pytest.approx(max(values))


def test_nothing_is_chosen_on_test():
    films, truths = three_questions()
    with pytest.raises(ConfigError, match="never on those of the test"):
        choose_cut(films, truths, split="test")
    with pytest.raises(DataError, match="1 films are in val_truth and in truth, such as b;"):
        check_apart(["a", "b"], ["b", "c"])
    check_apart(["a"], ["b"])


def test_values_that_are_not_one_a_setting_are_refused():
    with pytest.raises(ValueError, match="one value a setting"):
        best_of([1, 2], torch.zeros(3), by="miou", split="val", questions=1)


def test_a_film_without_scores_of_the_head_is_refused_with_those_it_has():
    with pytest.raises(DataError, match="no scores of the head 'informative', but of relevance"):
        grounding_ious(watched("q", [0, 1]), truth("q", (0, 1)), [0], [0.5], "informative")


def test_questions_without_truth_are_named_in_the_order_of_their_file():
    films = [watched(f"q{n}", [0]) for n in (3, 0, 2, 5, 1, 4)]
    assert paired(films, [truth("q0", (0, 1))]).unasked == ("q3", "q2", "q5", "q1", "q4")


def test_files_of_different_splits_are_refused():
    with pytest.raises(DataError, match="no question in common, such as 'q0' and 'other'"):
        paired([watched("q0", [0])], [truth("other", (0, 1))])


def test_a_film_of_which_no_frame_was_seen_finds_nothing():
    ious = grounding_ious(watched("q"), truth("q", (0, 1)), [0, 3], [0.5])
    assert (ious.shape, ious.sum()) == ((2, 2, 1), 0)
