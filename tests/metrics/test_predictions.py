import json
import tracemalloc
from collections import Counter
from dataclasses import asdict, replace

import pytest
from predicted import predicted

from mmavlm.core.errors import DataError
from mmavlm.metrics import (
    PredictionFile,
    TaskScores,
    captions,
    missing_rows,
    predictions_path,
    read_predictions,
    score_predictions,
    write_predictions,
)

ROWS = [
    predicted(0, ["yes", "no"]),
    predicted(1, ["a\u2028b\nc", "yes"], references=["a b c"]),
    predicted(2, ["comedy"], "comedy", task="v1.genre", ranking=["action", "comedy"]),
    predicted(3, ["a cat sits"], "a cat", task="caption", compare="caption"),
]


@pytest.fixture
def file(tmp_path):
    write_predictions(tmp_path / "predictions.jsonl", ROWS)
    return tmp_path / "predictions.jsonl"


def test_predictions_come_back_as_they_were_written(file):
    assert read_predictions(file) == ROWS
    assert read_predictions(predictions_path(file.parent)) == ROWS
    assert [path.name for path in file.parent.iterdir()] == ["predictions.jsonl"]


def test_a_row_says_of_an_answer_its_text_and_its_log_probability_alone(file):
    for line in file.read_bytes().splitlines():
        row = json.loads(line)
        assert {key for said in (*row["answers"], *row["ranking"]) for key in said} <= {
            "text", "log_prob",
        }  # fmt: skip


def test_a_rule_that_is_given_stands_in_place_of_the_rows(file):
    assert {row.compare for row in read_predictions(file, "first_word")} == {"first_word"}


def edited(file, **lines):
    """The file with some lines (`l2` is the second) written anew."""
    content = file.read_text().split("\n")[:-1]
    for name, line in lines.items():
        content[int(name[1:]) - 1] = line
    file.write_text("\n".join(content) + "\n")
    return file


def changed(row, **values):
    return json.dumps({**asdict(row), **values})


def test_broken_and_repeated_rows_are_named_by_file_and_line(file):
    edited(file, l1='{"item_id": "i0", ', l2=changed(ROWS[1], answers=[{"text": "a"}]),
           l4=changed(ROWS[2]))  # fmt: skip
    with pytest.raises(DataError) as raised:
        read_predictions(file)
    said = str(raised.value)
    assert f"{file} has 3 rows that cannot be used" in said
    assert "line 1: no JSON" in said
    assert "line 2: 'answers' must hold text and log_prob, got {'text': 'a'}" in said
    assert "line 4: item 'i2' was there in line 3" in said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "line 2: empty"),
        ("[1]", "line 2: expected an object, got list"),
        (changed(ROWS[1], truth=None), "line 2: 'truth' must be a text, got None"),
        (changed(ROWS[1], answers=[]), "line 2: item 'i1' has no answer"),
        (changed(ROWS[1], ranking=None), "line 2: 'ranking' must be a list of answers, got None"),
        (changed(ROWS[1], references=[]), "line 2: 'references' must be a list of texts, got []"),
        (changed(ROWS[1], references=[3]), "line 2: 'references' must be a text, got 3"),
        (changed(ROWS[1], compare="last"), "line 2: 'compare' must be one of whole, first_word"),
        ("[" * 100_000, "line 2: no JSON (maximum recursion depth"),
        (changed(ROWS[1], said=5), "line 2: 'said' must be a list of texts, got 5"),
        (changed(ROWS[1], said="abc"), "line 2: 'said' must be a list of texts, got 'abc'"),
        (
            changed(ROWS[2], item_id="i1", answers=[], said=["a"]),
            "line 2: item 'i1' has 'said', but no 'answers'",
        ),
        (
            changed(ROWS[1], answers=[{"text": "a", "log_prob": 10**400}]),
            "line 2: 'log_prob' is a number beyond all floats",
        ),
        (changed(ROWS[1], compare="first_word"), "line 2: task 'qa' is compared by first_word"),
    ],
)
def test_a_row_that_cannot_be_used_is_told_with_its_reason(file, line, message):
    with pytest.raises(DataError, match="rows that cannot be used") as raised:
        read_predictions(edited(file, l2=line))
    assert message in str(raised.value)


def test_blank_lines_at_the_end_and_a_byte_order_mark_are_no_rows(file):
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes() + b"\n \n")
    assert read_predictions(file) == ROWS


def test_only_the_first_of_many_broken_rows_are_named(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text("x\n" * 13)
    with pytest.raises(DataError, match="13 rows that cannot be used") as raised:
        read_predictions(path)
    said = str(raised.value)
    assert "line 10: no JSON" in said
    assert "line 11" not in said
    assert said.endswith("and 3 more")


def test_a_file_that_is_empty_or_not_there_is_refused(tmp_path):
    (tmp_path / "predictions.jsonl").touch()
    with pytest.raises(DataError, match="is empty"):
        read_predictions(tmp_path / "predictions.jsonl")
    with pytest.raises(DataError, match="gone does not exist; give the folder of a run"):
        predictions_path(tmp_path / "gone")


def test_rows_that_the_run_counted_and_the_file_lacks_are_told(file):
    metrics = {
        "test/qa/count": 3.0, "test/v1.genre/rank_count": 1.0, "test/v1.genre/count": 1.0,
        "test/qa/video_count": 9.0, "val/qa/count": 7.0, "test/caption/count": 1.0,
        "test/scene/count": 2.0, "test/scene/top1": 0.5, "test/hallucination/cuts/count": 8.0,
    }  # fmt: skip
    assert missing_rows(Counter(row.task for row in read_predictions(file)), metrics) == [
        "2 rows of task qa, of which the run counted 3 items",
        "0 rows of task scene, of which the run counted 2 items",
    ]


def test_each_task_is_scored_by_its_rule_and_dots_stay_in_names():
    values = score_predictions(ROWS[:3])
    assert values["qa/top1"] == 1, "a reference is right too"
    assert (values["v1.genre/top1"], values["v1.genre/rank_top1"]) == (1, 0)
    assert values["v1.genre/rank_top5"] == 1
    assert values["accuracy"] == 1


@pytest.mark.slow
def test_captions_are_counted_and_neither_right_nor_wrong():
    values = score_predictions(ROWS)
    assert values["caption/count"] == 1
    assert "caption/top1" not in values
    assert values["accuracy"] == 1


@pytest.mark.parametrize("compare", ["whole", "first_word", "caption"])
def test_scores_of_a_file_are_those_of_the_metrics_of_a_run(compare, monkeypatch):
    monkeypatch.setattr(captions, "java", lambda: None)
    words = ["a cat sits", "the dog runs on", "a cat runs", "the dog sits on it"]
    rows = [
        replace(
            predicted(i, [words[i % 4], "no"], words[i % 3], task=task, ranking=["no", words[0]]),
            compare=compare, video_id=f"v{i % 5}", said=["?"] if task == "b/y" else [],
        )
        for i in range(12) for task in ("a/x", "b/y")
    ]  # fmt: skip
    scores = TaskScores(
        {"a/x": compare, "b/y": compare},
        {"a/x": ["generated", "ranked"], "b/y": ["generated", "ranked", "said"]},
        ["a", "b"],
    )
    for row in (*rows[::-1], *rows[:3]):  # in any order, some of them twice
        scores.update([row])
    assert score_predictions(rows) == pytest.approx(scores.compute())


def test_films_are_voted_on_by_question():
    asked = [("does it rain?", "yes", "yes"), ("is it night?", "yes", "yes"),
             ("is there a dog?", "no", "yes")]  # fmt: skip
    rows = [
        replace(predicted(i, [said], truth), prompt=prompt)
        for i, (prompt, said, truth) in enumerate(asked)
    ]
    assert score_predictions(rows)["qa/video_count"] == 3


def test_tasks_of_a_set_have_a_mean_of_their_own():
    rows = [
        predicted(0, ["yes"], task="a/x"),
        predicted(1, ["no"], task="a/y"),
        predicted(2, ["no"], task="b/x"),
    ]
    values = score_predictions(rows)
    assert (values["a/accuracy"], values["b/accuracy"]) == (0.5, 0)
    assert values["accuracy"] == pytest.approx(1 / 3)


def test_a_file_is_read_row_by_row_and_tells_what_is_wrong_at_its_end(file):
    edited(file, l2="broken")
    rows = iter(PredictionFile(file))
    assert next(rows) == ROWS[0]
    assert next(rows) == ROWS[2]
    with pytest.raises(DataError, match="line 2: no JSON"):
        list(rows)


def test_ten_thousand_rows_are_held_in_a_few_bytes_each(tmp_path):
    path = tmp_path / "predictions.jsonl"
    text = "a long answer " * 50
    write_predictions(path, (replace(ROWS[0], item_id=f"{n}", truth=text) for n in range(10_000)))
    tracemalloc.start()
    assert sum(1 for _ in PredictionFile(path)) == 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 10_000  # and the texts are 700 bytes each
