"""Files of watched films and of their truth."""

import json

import pytest
from duet_films import truth, watched
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.errors import DataError
from mmavlm.metrics.duet.files import (
    read_events,
    read_highlights,
    read_watched,
    write_values,
)
from mmavlm.metrics.duet.watched import Event, EventTruth, HighlightTruth, Said, Watched

OURS = {
    "question_id": "q",
    "duration_s": 3,
    "times_s": [0, 1],
    "scores": {"relevance": [0.1, 0.2]},
    "replies": [{"time_s": 1, "text": "a dog"}],
    "queries": [],
}
PREDICTION = {
    "question_id": 7,
    "video_duration": 30.1,
    "model_response_list": [
        {"time": 0, "content": "when?", "role": "user"},
        {"time": 4.5, "content": "now", "role": "assistant"},
    ],
    "debug_data": [
        {"time": 0.0, "informative_score": 0.1, "relevance_score": 0.7},
        {"time": 0.5, "informative_score": 0.2, "relevance_score": 0.6},
    ],
}
QUESTION = {"question_id": "q", "video": "v.mp4",
            "conversation": [{"role": "user", "content": "when?", "time": 0}]}  # fmt: skip
HIGHLIGHTS = {"qid": 1, "query": "a dog", "vid": "v", "duration": 150, "relevant_clip_ids": [3],
              "saliency_scores": [[4, 3, 4]]}  # fmt: skip


def lines(path, *rows):
    path.write_text("\n".join(row if type(row) is str else json.dumps(row) for row in rows))
    return path


texts = st.text(st.characters(codec="utf-8"))
seconds = st.floats(0, 1000)
turns = st.lists(st.builds(Said, seconds, texts), max_size=3).map(
    lambda said: tuple(sorted(said, key=lambda one: one.time_s))
)


@st.composite
def films(draw):
    times = sorted(draw(st.sets(seconds, max_size=4)))
    number = st.floats(allow_nan=False, allow_infinity=False)
    scores = st.tuples(*[number] * len(times))
    heads = draw(st.dictionaries(texts, scores, max_size=2))
    name = draw(texts.filter(len))
    return Watched(name, draw(seconds), tuple(times), heads, draw(turns), draw(turns))


@given(st.lists(films(), min_size=1, max_size=3, unique_by=lambda film: film.question_id))
def test_films_written_are_read_as_they_were(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("films") / "watched.jsonl"
    write_values(path, rows)
    assert read_watched(path) == rows


def test_truth_written_is_read_as_it_was(tmp_path):
    events = [truth("q0", (1, 2), (5, 5, "a dog\u2028barks")), truth("q1", (0, 3))]
    write_values(tmp_path / "events.jsonl", events)
    assert read_events(tmp_path / "events.jsonl") == events
    highlights = [HighlightTruth("q", "v", 9.0, (0, 3), ((4, 3, 0), (1, 1, 1)))]
    write_values(tmp_path / "highlights.jsonl", highlights)
    assert read_highlights(tmp_path / "highlights.jsonl") == highlights


def test_published_predictions_are_read(tmp_path):
    scores = {"informative": (0.1, 0.2), "relevance": (0.7, 0.6)}
    expected = Watched("7", 30.1, (0.0, 0.5), scores, (Said(4.5, "now"),), (Said(0.0, "when?"),))
    assert read_watched(lines(tmp_path / "p.json", PREDICTION)) == [expected]


def test_older_published_predictions_are_read_by_their_names(tmp_path):
    frames = [{"video_time": n, "relevance_score": [0.3, 0.7]} for n in (0.0, 0.5)]
    (film,) = read_watched(lines(tmp_path / "p.json", {**PREDICTION, "debug_data": frames}))
    assert (film.times_s, film.scores) == ((0.0, 0.5), {"relevance": (0.7, 0.7)})


def test_published_spans_and_answers_are_read(tmp_path):
    entries = [
        {**QUESTION, "timestamps": [[1, 2.5]]},
        {**QUESTION, "question_id": 2, "answer": [{"content": "a dog", "time": [3, 4]}]},
    ]
    path = lines(tmp_path / "test.json", json.dumps(entries))
    asked = (Said(0.0, "when?"),)
    assert read_events(path) == [
        EventTruth("q", "v.mp4", (Event(1.0, 2.5),), asked),
        EventTruth("2", "v.mp4", (Event(3.0, 4.0, "a dog"),), asked),
    ]


def test_published_answers_and_searches_for_training_are_read(tmp_path):
    turns = [{"role": "user", "time": 1.2, "content": "when?"},
             {"role": "assistant", "time": 4, "timespan": [2, 6], "content": "a dog"},
             {"role": "assistant", "time": 8, "content": "a cat"}]  # fmt: skip
    rows = [
        {"question_id": "a", "video_uid": "v.mp4", "video_start_time": 0, "conversation": turns},
        {"question_id": "b", "video_uid": "v.mp4", "query": "a dog", "timestamps": [[2, 6]]},
        {"question_id": "c", "video_uid": "v.mp4", "conversation": turns[:1]},
        {"question_id": "d", "video_uid": "v.mp4", "query": "a cat", "timestamps": []},
    ]
    assert read_events(lines(tmp_path / "train.json", json.dumps(rows))) == [
        EventTruth("a", "v.mp4", (Event(2.0, 6.0, "a dog"), Event(8.0, 8.0, "a cat")),
                   (Said(1.2, "when?"),)),
        EventTruth("b", "v.mp4", (Event(2.0, 6.0),), (Said(0.0, "a dog"),)),
        EventTruth("c", "v.mp4", (), (Said(1.2, "when?"),)),
        EventTruth("d", "v.mp4", (), (Said(0.0, "a cat"),)),
    ]  # fmt: skip


def test_published_highlights_are_read(tmp_path):
    path = lines(tmp_path / "val.jsonl", HIGHLIGHTS)
    assert read_highlights(path) == [HighlightTruth("1", "v", 150.0, (3,), ((4, 3, 4),))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"duration_s": "3"}, "'duration_s' must be a valid number, got '3'"),
        ({"duration_s": True}, "'duration_s' must be a valid number, got True"),
        ({"duration_s": float("nan")}, "'duration_s' must be a finite number, got nan"),
        ({"duration_s": 10**400}, "'duration_s' must be a"),
        ({"times_s": [0]}, "scores.relevance must have one number a frame: 1 frames"),
        ({"times_s": [0, 0]}, "times_s must increase, but 0 s follows 0 s"),
        ({"times_s": "ab"}, "'times_s' must be a list, got 'ab'"),
        ({"scores": {"relevance": [0.1, "a"]}}, "'scores.relevance.1' must be a valid number"),
        ({"extra": 1}, "key 'extra' is unknown; remove it"),
        ({"question_id": 1.5}, "'question_id' must be a text, got 1.5"),
        ({"question_id": ""}, "'question_id' must have at least 1 item"),
        ({"replies": [{"time_s": -1, "text": "a"}]}, "'replies.0.time_s' must be greater than"),
        ({"replies": [{"time_s": 1}]}, "key 'replies.0.text' is missing"),
        ({"replies": [{"time_s": 1, "text": "\ud800"}]}, "'replies.0.text' holds half of"),
        ({"queries": [{"time_s": 2, "text": "a"}, {"time_s": 1, "text": "b"}]},
         "queries must be in order of time, but that at 1 s follows that at 2 s"),
        ({"model_response_list": []}, "key 'video_duration' is missing"),
    ],
)  # fmt: skip
def test_a_film_that_is_none_is_refused_with_its_line(tmp_path, change, said):
    path = lines(tmp_path / "p.jsonl", {**OURS, "question_id": "before"}, {**OURS, **change})
    with pytest.raises(DataError, match="has 1 rows") as caught:
        read_watched(path)
    assert f"line 2: {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"debug_data": [{"time": 0, "relevance_score": [0.3, 0.5]}]}, "of no and yes, which sum"),
        ({"debug_data": [{"time": 0, "relevance_score": 1.5}]}, "must be less than or equal to 1"),
        ({"debug_data": [{"relevance_score": 0.5}]}, "key 'debug_data.0.time' is missing"),
        ({"debug_data": [{"time": 0, "relevance_score": 0.5}, {"time": 1}]},
         "relevance_score must be there for all frames or for none, got 1 of 2"),
        ({"model_response_list": [{"time": -1, "content": "a", "role": "assistant"}]},
         "'model_response_list.0.time' must be greater than or equal to 0, got -1"),
        ({"model_response_list": [{"time": 1, "content": "a", "role": "stream"}]},
         "must be 'user' or 'assistant', got 'stream'"),
    ],
)  # fmt: skip
def test_a_published_prediction_that_is_none_is_refused(tmp_path, change, said):
    with pytest.raises(DataError, match="line 1") as caught:
        read_watched(lines(tmp_path / "p.json", {**PREDICTION, **change}))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("read", "row", "said"),
    [
        (read_events, {**QUESTION, "timestamps": [[3, 2]]}, "ends before it starts, got 3 to 2 s"),
        (read_events, {**QUESTION, "timestamps": [3]}, "'timestamps.0' must be a list, got 3"),
        (read_events, QUESTION, "key 'timestamps' or 'answer' is missing: one says what is true"),
        (read_events, {"question_id": "q", "timestamps": []}, "key 'video' is missing"),
        (read_events, {"timestamps": [[1, 2]]}, "key 'question_id' is missing"),
        (read_events, HIGHLIGHTS, "is of highlights, which are scored by task=highlights"),
        (read_highlights, {**QUESTION, "timestamps": [[1, 2]]}, "has spans and no ratings"),
        (read_highlights, {**HIGHLIGHTS, "saliency_scores": []}, "got 1 clips and 0 ratings"),
        (read_highlights, {**HIGHLIGHTS, "relevant_clip_ids": [75]}, "clip 75 lies behind the end"),
        (read_highlights, {**HIGHLIGHTS, "saliency_scores": [[4, 3, 5]]}, "than or equal to 4"),
        (read_highlights, {**HIGHLIGHTS, "saliency_scores": [[4, 3]]}, "'saliency_scores.0"),
    ],
)  # fmt: skip
def test_a_truth_that_is_none_is_refused(tmp_path, read, row, said):
    with pytest.raises(DataError, match="has 1 rows") as caught:
        read(lines(tmp_path / "truth.json", row))
    assert said in str(caught.value)


def test_lines_that_hold_no_row_are_all_named(tmp_path):
    path = lines(tmp_path / "p.jsonl", OURS, OURS, "", '{"a": 1, "a": 2}', "{]", "3")
    with pytest.raises(DataError) as caught:
        read_watched(path)
    for said in ("line 2: question 'q' was there in line 1", "line 3: is empty",
                 "line 4: has the key 'a' twice; leave one", "line 5: is not JSON",
                 "line 6: must be a JSON object, got 3"):  # fmt: skip
        assert said in str(caught.value)


def test_of_many_broken_rows_the_rest_is_counted(tmp_path):
    with pytest.raises(DataError, match=r"has 15 rows .*(?s:.)* and 5 more"):
        read_watched(lines(tmp_path / "p.jsonl", *["x"] * 15))


def test_files_without_a_row_are_refused(tmp_path):
    with pytest.raises(DataError, match="gone is no file"):
        read_watched(tmp_path / "gone")
    with pytest.raises(DataError, match="is empty"):
        read_watched(lines(tmp_path / "empty"))
    with pytest.raises(DataError, match="is empty"):
        read_events(lines(tmp_path / "none", "[]"))
    with pytest.raises(DataError, match="is not JSON"):
        read_events(lines(tmp_path / "cut", '[{"question_id": '))
    with pytest.raises(DataError, match="is not JSON"):
        read_events(lines(tmp_path / "deep", "[" * 100_000))
    (tmp_path / "latin").write_bytes(b'{"question_id": "caf\xe9"}')
    with pytest.raises(DataError, match="is no UTF-8 text"):
        read_watched(tmp_path / "latin")


def test_a_value_made_in_code_is_checked_as_one_that_is_read():
    with pytest.raises(ValueError, match="must have one number a frame"):
        watched("q", [0.1, 0.2], informative=(0.1,))
    with pytest.raises(ValueError, match="ends before it starts"):
        Event(2, 1)
