import math
import random
import warnings
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.core.errors import ConfigError
from mmavlm.metrics import AnswerAccuracy, answer_accuracy, normalise_answer, wilson_interval

words = st.sampled_from(["comedy", "action", " Drama", "drama ", "COMEDY"])
items = st.tuples(
    st.sampled_from(["v0", "v1", "v2"]), st.lists(words, max_size=4), st.sampled_from("ac")
)
TRUTHS = {"v0": "Comedy", "v1": "action", "v2": "drama"}


def feed(metric: AnswerAccuracy, rows, size: int) -> dict[str, float]:
    for start in range(0, len(rows), size):
        metric.update(*map(list, zip(*rows[start : start + size], strict=True)))
    return metric.compute()


def as_rows(drawn):
    return [(f"{i}", video, given, TRUTHS[video]) for i, (video, given, _) in enumerate(drawn)]


@settings(max_examples=60, deadline=None)
@given(st.lists(items, min_size=1, max_size=30), st.integers(1, 7))
def test_top_k_equals_counting_by_hand(drawn, size):
    rows = as_rows(drawn)
    values = feed(AnswerAccuracy(top_k=(1, 2, 3)), rows, size)
    for k in (1, 2, 3):
        right = sum(
            truth.strip().lower() in [answer.strip().lower() for answer in answers[:k]]
            for _, _, answers, truth in rows
        )
        assert values[f"top{k}"] == pytest.approx(right / len(rows))
        if k == 1:
            bounds = values["top1_low"], values["top1_high"]
            assert bounds == pytest.approx(wilson_interval(right, len(rows)))
    assert values["count"] == len(rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(items, min_size=1, max_size=30))
def test_video_top1_is_a_majority_wherever_there_is_one(drawn):
    rows = as_rows(drawn)
    values = feed(AnswerAccuracy(), rows, len(rows))
    certain, possible = 0, 0
    videos = {video for _, video, _, _ in rows}
    for video in videos:
        votes = Counter(
            normalise_answer(answers[0]) if answers else None
            for _, of, answers, _ in rows
            if of == video
        )
        most = max(votes.values())
        winners = [answer for answer, n in votes.items() if n == most]
        certain += winners == [TRUTHS[video].lower()]
        possible += TRUTHS[video].lower() in winners
    assert values["video_count"] == len(videos)
    right = values["video_top1"] * len(videos)
    assert certain - 1e-9 <= right <= possible + 1e-9
    bounds = values["video_top1_low"], values["video_top1_high"]
    assert bounds == pytest.approx(wilson_interval(round(right), len(videos)))


@settings(max_examples=40, deadline=None)
@given(st.lists(items, min_size=1, max_size=20), st.integers(1, 5), st.integers(0, 1000))
def test_order_batches_and_repeated_items_change_nothing(drawn, size, seed):
    rows = as_rows(drawn)
    shuffled = rows + rows[: len(rows) // 2]
    random.Random(seed).shuffle(shuffled)
    expected = feed(AnswerAccuracy(), rows, len(rows))
    assert feed(AnswerAccuracy(), shuffled, size) == expected
    assert answer_accuracy(*map(list, zip(*rows, strict=True))) == expected


def test_a_tie_between_answers_of_a_video_has_one_winner():
    rows = [(f"{i}", f"v{i // 2}", ["yes" if i % 2 else "no"], "yes") for i in range(200)]
    values = feed(AnswerAccuracy(), rows, 200)
    assert values["video_count"] == 100
    assert 0.3 < values["video_top1"] < 0.7  # decided by the items' keys: even on average


def test_a_majority_outvotes_single_windows():
    answers = [["comedy"], ["comedy"], ["action"]]
    values = answer_accuracy(["0", "1", "2"], ["v"] * 3, answers, ["comedy"] * 3)
    assert values["top1"] == pytest.approx(2 / 3)
    assert values["video_top1"] == 1


def test_each_truth_of_a_video_is_voted_on_apart():
    answers = [["yes"], ["yes"], ["no"]]
    values = answer_accuracy(["0", "1", "2"], ["v"] * 3, answers, ["yes", "yes", "no"])
    assert values["video_count"] == 2
    assert values["video_top1"] == 1


def test_each_question_about_a_video_is_voted_on_apart():
    answers, truths = [["yes"], ["yes"], ["no"], ["no"]], ["yes", "yes", "yes", "no"]
    given = (["0", "1", "2", "3"], ["v"] * 4, answers, truths)
    prompts = ["does it rain?", "is there a dog?", "is it night?", "does it snow?"]
    apart = answer_accuracy(*given, prompts=prompts)
    assert (apart["video_count"], apart["video_top1"]) == (4, 0.75)
    windows = answer_accuracy(*given, prompts=["does it rain?"] * 3 + ["does it snow?"])
    assert (windows["video_count"], windows["video_top1"]) == (2, 1)
    metric = AnswerAccuracy()
    metric.update(*given, prompts=prompts)
    assert metric.compute() == apart


def test_an_item_without_answers_is_wrong_even_where_the_truth_is_empty():
    values = answer_accuracy(["0", "1"], ["v", "w"], [[], [""]], ["", ""])
    assert values["top1"] == values["top5"] == values["video_top1"] == 0.5


@pytest.mark.parametrize("text", ["at  Home", " AT HOME\n", "at\thome"])
def test_answers_are_compared_without_case_and_spaces(text):
    assert normalise_answer(text) == "at home"


def test_reset_forgets_all_items():
    metric = AnswerAccuracy()
    metric.update(["0"], ["v"], [["yes"]], ["yes"])
    metric.reset()
    metric.update(["1"], ["v"], [["no"]], ["yes"])
    assert metric.compute()["top1"] == 0


def test_without_items_accuracy_is_nan_and_the_interval_is_everything():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was called before the ``update``.*")
        values = AnswerAccuracy().compute()
    assert math.isnan(values["top1"])
    assert (values["top1_low"], values["top1_high"], values["count"]) == (0, 1, 0)


@pytest.mark.parametrize("take", [answer_accuracy, AnswerAccuracy().update])
def test_parts_of_different_lengths_are_refused(take):
    message = r"one entry an item is expected of each, got \{'item_ids': 2, .*'truths': 1\}"
    with pytest.raises(ValueError, match=message):
        take(["0", "1"], ["v", "v"], [["yes"]], ["yes"])


def test_top_0_is_refused():
    with pytest.raises(ValueError, match=r"top_k counts answers from 1, got \[1, 0\]"):
        AnswerAccuracy(top_k=(1, 0))


def test_first_words_alone_are_compared_where_they_are_what_counts():
    answers = [["Sing  a song", "dance"], [""], ["a man"], []]
    truths = ["sing", "cat", "a man", "dog"]
    ids = list("0123")
    whole = answer_accuracy(ids, ids, answers, truths)
    first = answer_accuracy(ids, ids, answers, truths, compare="first_word")
    assert (whole["top1"], first["top1"]) == (0.25, 0.25)
    assert feed(
        AnswerAccuracy(compare="first_word"), list(zip(ids, ids, answers, truths, strict=True)), 2
    ) == pytest.approx(first)
    best = [normalise_answer(given[0], "first_word") for given in answers[:3]]
    right = [answer == truth for answer, truth in zip(best, truths[:3], strict=True)]
    assert right == [True, False, False], "a truth of two words is no first word"


def test_an_unknown_comparison_is_refused():
    with pytest.raises(ConfigError, match=r"stage\.compare='last' is unknown; choose one of whole"):
        AnswerAccuracy(compare="last")
