import pytest

from mmavlm.metrics.headline import Score
from mmavlm.report.lead import lead


def plain(sentences):
    return [sentence.replace("\u2068", "").replace("\u2069", "") for sentence in sentences]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.76, 0.87, ""),
        (0.20, 0.51, "; this is no better than guessing, as far as these items can tell"),
        (0.01, 0.15, "; this is worse than guessing"),
    ],
)
def test_a_number_is_better_than_guessing_only_if_its_interval_is(low, high, verdict):
    (sentence,) = plain(lead([Score("genre/top1", (low + high) / 2, low, high, 200, 0.25)]))
    assert sentence.startswith(f"Genre: {50 * (low + high):.1f} % of 200 test items right, 95 %")
    assert sentence.endswith(f"{verdict}; the most common answer alone would give 25.0 %.")
    assert ("guessing" in sentence) == bool(verdict)


def test_each_task_has_one_sentence():
    scores = [
        Score("genre/top1", 0.5, 0.4, 0.6, 100, 0.25),
        Score("genre/rank_top1", 0.6, 0.5, 0.7, 100, 0.25),
        Score("hallucination", 0.1, 0.07, 0.16, 200),
        Score("joint/v2t_r1", 0.1, items=30, guess=0.033),
        Score("joint/t2v_r1", 0.1, items=30, guess=0.033),
        Score("c/cider", 0.5, 0.4, 0.6, 7),
        Score("speaking/speaking_f1", 0.9, 0.8, 1.0, 9, 0.4),
    ]
    sentences = plain(lead(scores))
    assert [sentence.partition(":")[0] for sentence in sentences] == [
        "Genre", "Hallucination", "Alignment", "C", "Speaking"
    ]  # fmt: skip
    assert "lower is better" in sentences[1]
    assert "a random order would give 3.3 %" in sentences[2]
    assert "CIDEr of captions, 50.0 over 7 test items" in sentences[3]
    assert "F1 of speaking in time, 90.0 % over 9 test items" in sentences[4]
    assert sentences[4].endswith("the best rhythm alone would give 40.0 %.")


def test_many_tasks_are_counted_by_whether_they_beat_guessing():
    bounds = [(0.5, 0.7), (0.5, 0.7), (0.1, 0.5), (0.0, 0.1), (0.6, 0.8), (0.6, 0.8)]
    scores = [Score(f"t{n}/top1", 0.5, *b, 50, 0.25) for n, b in enumerate(bounds)]
    better, no_better, worse = plain(lead(scores))
    assert better.startswith("4 of 6 better than the most common answer alone: T0 (50.0 %), T1")
    assert no_better.startswith("1 of 6 no better")
    assert worse.startswith("1 of 6 worse than the most common answer alone: T3")


def test_without_a_test_nothing_is_claimed():
    assert lead([]) == ["No test was run, so this report does not say what was learnt."]


def test_the_habit_of_a_test_is_no_task_of_its_own():
    scores = [
        Score("genre/top1", 0.5, 0.4, 0.6, 100, 0.25),
        Score("habitual_mistakes", 0.6, 0.5, 0.7),
        Score("without_film/top1", 0.3, 0.2, 0.4),
        Score("shuffled/top1", 0.4, 0.3, 0.5),
    ]
    genre, habit = plain(lead(scores))
    assert genre.startswith("Genre: 50.0 %")
    assert habit.startswith("Of the wrong answers 60.0 % (95 % interval 50.0 to 70.0) are given")
