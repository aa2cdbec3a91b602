"""A file of questions without answers: every row is asked."""

import json

import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.readers.questions import QuestionReader


@pytest.fixture
def read(tmp_path):
    def read(*rows, **settings):
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        (tmp_path / "q.jsonl").write_text("\n".join(lines))
        return QuestionReader("q.jsonl", **settings)(tmp_path, "test", None)

    return read


def test_rows_of_any_split_are_asked_about_films_beside_the_file(read, tmp_path):
    first, second = read(
        {"video": "a.mp4", "prompt": "why?", "split": "train", "start_s": 1, "end_s": "0:02"},
        {"video": "b/c.mp4", "question": "who?", "answer": "she", "id": "c"},
    )
    assert first.film.source == tmp_path / "a.mp4"
    assert (first.film.start_s, first.film.end_s) == (1, 2)
    assert (first.item_id, second.item_id) == ("a.mp4, line 1", "c")
    assert (first.prompt, second.prompt) == ("why?", "who?")
    assert first.target == second.target == ""


@pytest.mark.parametrize(("style", "answers"), [("letters", ("A", "B")), ("texts", ("x", "y"))])
def test_options_are_asked_without_one_that_is_right(read, style, answers):
    (item,) = read({"video": "a.mp4", "prompt": "which?", "options": ["x", "y"]}, options=style)
    assert item.options.answers == answers
    assert item.prompt == item.options.ask("which?")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"video" "a.mp4"}', "line 1 is not JSON"),
        ({"video": "a.mp4", "prompt": ""}, "'prompt' is missing or empty"),
        ({"prompt": "why?"}, "'video' is missing or empty"),
        ({"video": "../a.mp4", "prompt": "why?"}, "leads out of"),
        ({"video": "a.mp4", "prompt": "why?", "options": ["x"]}, "2 to 26 options, got 1"),
        ({"video": "a.mp4", "prompt": "why?", "start_s": 2, "end_s": 1}, "end_s must be after"),
        ({"film": "a.mp4", "text": "why?"}, "has none of the keys video, prompt"),
        ("", "holds no rows"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named_before_any_is(read, row, message):
    with pytest.raises(DataError, match=message):
        read(row)


def test_two_rows_of_one_id_are_refused(read):
    row = {"video": "a.mp4", "prompt": "why?", "id": "a"}
    with pytest.raises(DataError, match="id 'a' was there before, give each row an id"):
        read(row, row)


def test_an_unknown_style_of_options_is_named():
    with pytest.raises(ConfigError, match="options='digits' is unknown"):
        QuestionReader("q.jsonl", "digits")
