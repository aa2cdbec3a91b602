"""The few numbers of a test that a reader looks for first, and how they are printed."""

import io
import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from predicted import predicted
from rich.console import Console

from mmavlm.metrics import score_predictions
from mmavlm.metrics.guesses import Guesses
from mmavlm.metrics.headline import Score, every_score, headline
from mmavlm.metrics.table import score_table

FOUR = ("yes", "no", "both", "none")
SEVEN = (*FOUR, "a", "b", "c")


def scored(rows):
    return {f"test/{name}": value for name, value in score_predictions(rows).items()}


def told(rows, **more):
    return {score.name: score for score in headline(scored(rows) | more, Guesses(rows))}


def printed(scores, width=80):
    out = io.StringIO()
    Console(file=out, width=width).print(score_table("a run", scores))
    return out.getvalue()


def alone(number, *answers, **more):
    """A prediction about a film of its own."""
    return replace(predicted(number, answers, **more), video_id=f"v{number}")


@pytest.mark.parametrize(("choices", "shown"), [(FOUR, False), (SEVEN, True)])
def test_top_5_is_told_where_there_are_more_than_five_answers(choices, shown):
    rows = [alone(n, *choices[1:6], truth=choices[n % 3 + 1], ranking=choices) for n in range(12)]
    assert ("qa/top5" in told(rows)) == shown
    assert ("qa/rank_top5" in told(rows)) == shown


def test_votes_of_films_are_told_where_films_have_several_items():
    several = [predicted(n, ["yes"]) for n in range(9)]
    assert "qa/video_top1" in told(several)
    assert told(several)["qa/video_top1"].items == 3
    assert "qa/video_top1" not in told([alone(n, "yes") for n in range(9)])


def test_a_ranking_that_repeats_the_generated_answers_is_told_once():
    same = [alone(n, "yes", ranking=FOUR) for n in range(4)]
    other = [alone(n, "yes", ranking=FOUR[::-1]) for n in range(4)]
    ranked_alone = [alone(n, ranking=FOUR) for n in range(4)]
    assert list(told(same)) == ["qa/top1"]
    assert list(told(other)) == ["qa/top1", "qa/rank_top1"]
    assert list(told(ranked_alone)) == ["qa/rank_top1"]


def test_guessing_is_the_answer_that_is_right_most_often():
    truths = ["no", "No ", "yes", "no", "maybe"]
    rows = [alone(n, "yes", truth=truth) for n, truth in enumerate(truths)]
    assert Guesses(rows).of("qa").share == 3 / 5
    assert told(rows)["qa/top1"].guess == 3 / 5
    also = [replace(row, references=[row.truth, "perhaps"]) for row in rows]
    assert Guesses(also).of("qa").share == 1
    long = [alone(n, "x", truth="a dog", compare="first_word") for n in range(2)]
    assert math.isnan(Guesses(long).of("qa").share), "what no first word can be is no guess"


def test_guessing_equals_what_a_run_that_says_it_always_scores():
    truths = ["a", "b", "a", "c", "a", "b"]
    rows = [alone(n, "b", truth=truth) for n, truth in enumerate(truths)]
    always = [alone(n, "a", truth=truth) for n, truth in enumerate(truths)]
    assert score_predictions(always)["qa/top1"] == Guesses(rows).of("qa").share


def test_guesses_of_many_texts_equal_those_that_a_counter_finds():
    draws = random.Random(3)
    truths = [str(int(draws.paretovariate(0.3)) % 300_000) for _ in range(250_000)]
    rows = [alone(n, "x", truth=truth) for n, truth in enumerate(truths)]
    guesses = Guesses()
    for start in range(0, len(rows), 70_000):
        guesses.take(rows[start : start + 70_000])
    ((_, most),) = Counter(truths).most_common(1)
    assert guesses.of("qa").share == most / len(rows)


def test_tasks_and_sets_of_a_mix_are_told_each_and_means_of_several():
    tasks = ("lvu/genre", "lvu/scene", "msvd/qa")
    rows = [alone(n, "yes", task=task) for n, task in enumerate(tasks * 2)]
    names = list(told(rows))
    assert names == [*(f"{task}/top1" for task in tasks), "accuracy", "lvu/accuracy"]
    assert list(told(rows[:1])) == ["lvu/genre/top1"], "the mean of one task is no news"


def test_captions_are_told_by_the_published_names_where_there_are_any():
    caption = {
        f"test/c/{n}{end}": 0.5 for n in ("cider", "cider_plain") for end in ("", "_low", "_high")
    }
    scores = {s.name: s for s in headline({**caption, "test/c/count": 7.0})}
    assert list(scores) == ["c/cider"]
    assert (scores["c/cider"].shown, scores["c/cider"].items) == ("50.0", 7)


def test_a_benchmark_is_told_by_its_headline_and_not_by_the_words_of_its_answers():
    rows = [alone(n, "yes, it is", truth="yes", task="object") for n in range(4)]
    of_benchmark = {
        "test/pope": 0.7, "test/pope_low": 0.6, "test/pope_high": 0.8, "test/pope_count": 4.0,
        "test/pope/all/accuracy": 0.7, "test/pope/all/yes_ratio": 0.9,
        "test/pope/all/yes_difference": 0.4, "test/pope/object/accuracy": 0.7,
    }  # fmt: skip
    scores = told(rows, **of_benchmark)
    assert list(scores) == ["pope"]
    assert scores["pope"].items == 4
    assert scores["pope"].guess == pytest.approx(0.5), "half of the truths are yes"


def test_a_benchmark_of_one_task_leaves_the_others_their_scores():
    rows = [alone(n, "yes", task=task) for n, task in enumerate(["cuts", "genre"])]
    found = {
        "test/hallucination": 0.5, "test/hallucination_low": 0.1, "test/hallucination_high": 0.9,
        "test/hallucination/cuts/unshown": 0.5,
    }  # fmt: skip
    assert list(told(rows, **found)) == ["genre/top1", "hallucination"]


def test_retrieval_is_told_beside_chance():
    joint = {"v2t_r1": 0.5, "t2v_r1": 0.4, "chance_r1": 0.1, "count": 10.0, "v2t_r5": 1.0}
    metrics = {f"test/{level}/{n}": v for level in ("joint", "low") for n, v in joint.items()}
    scores = headline(metrics)
    assert [(s.name, s.guess, s.items) for s in scores] == [
        ("joint/v2t_r1", 0.1, 10), ("joint/t2v_r1", 0.1, 10)
    ]  # fmt: skip


def test_nothing_is_told_of_what_was_not_tested():
    assert headline({"val/qa/top1": 0.5, "train/loss": 1.0}) == []


def test_the_table_says_score_interval_items_and_guess_in_80_columns():
    text = printed([Score("relationship/rank_top1", 0.82, 0.761, 0.867, 200, 0.25)])
    assert "relationship/rank_top1" in text
    assert all(part in text for part in ("82.0 %", "76.1 to 86.7", "200", "25.0 %"))
    assert max(map(len, text.splitlines())) <= 80


def test_a_table_without_guesses_has_no_column_of_them():
    assert "guess" not in printed([Score("qa/top1", 0.5)])


def test_a_task_called_like_markup_is_printed_as_it_is():
    assert "[red]/top1" in printed([Score("[red]/top1", 0.5)])


def test_every_score_has_its_count_beside_it_and_no_row_of_bounds():
    values = {"b": 0.5, "b_low": 0.4, "b_high": 0.6, "b_count": 9.0, "b/all/mcc": -0.25,
              "b/all/incomplete": 2.0, "b/all/count": 9.0}  # fmt: skip
    scores = {s.name: (s.shown, s.interval, s.items) for s in every_score(values)}
    assert scores == {
        "b": ("50.0 %", "40.0 to 60.0", 9),
        "b/all/mcc": ("-0.250", "", 9),
        "b/all/incomplete": ("2", "", None),
    }


def test_watched_films_are_told_by_few_numbers_beside_the_best_rhythm():
    speaking = {"speaking_f1": 0.8, "speaking_f1_low": 0.7, "speaking_f1_high": 0.9,
                "constant_f1": 0.4, "above_constant": 0.4, "delay_s": 0.3, "count": 20.0,
                "missing": 0.0}  # fmt: skip
    values = {f"test/speaking/{name}": value for name, value in speaking.items()}
    values |= {"test/set/grounding/miou": 0.5, "test/set/grounding/missing": 2.0}
    found = {score.name: score for score in headline(values)}
    assert list(found) == ["set/grounding/miou", "set/grounding/missing", "speaking/speaking_f1",
                           "speaking/above_constant"]  # fmt: skip
    told = found["speaking/speaking_f1"]
    assert (told.guess, told.items, told.interval) == (0.4, 20, "70.0 to 90.0")
    assert found["set/grounding/miou"].guess is None


@pytest.mark.parametrize("width", [80, 60])
def test_no_number_of_a_table_is_cut_off_on_a_narrow_screen(width):
    shown = printed([Score("relationship/rank_top1", 0.25, 0.071, 0.591, 8, 0.25)], width)
    assert "…" not in shown
    assert all(part in shown for part in ("25.0", "7.1", "59.1", "guess"))
