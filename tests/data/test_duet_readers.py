"""Readers of films that run while others speak: what is said when, and what frames are labelled."""

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.medium import Medium
from mmavlm.core.streams import labels_of, streamed
from mmavlm.data.readers import (
    CharadesSTAReader,
    DenseCaptionReader,
    GroundingReader,
    MAGQAReader,
    QVHighlightsReader,
    YouCook2Reader,
)
from mmavlm.data.readers.duet import TRUTH
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.sentences import FIND, NARRATE
from mmavlm.data.readers.timed import Said, merged

CAPTION = {"time": 3.1, "text": "She stirs.", "timespan": [1, 5]}
LATER = {"time": 7.6, "text": "She pours.", "timespan": [5, 9]}
ASKED = {"role": "user", "time": 1.2, "content": "What does she do?"}
ANSWER = {"role": "assistant", "time": 4, "timespan": [2, 6], "content": "She stirs."}


def grid(duration_s, fps=2.0, start_s=0.0):
    return [start_s + k / fps for k in range(math.floor((duration_s - start_s) * fps))]


def read(reader, root, rows, split="train", name=None):
    path = Path(root) / (name or f"{split}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return reader(root, split, None)


def run(item, times_s):
    """What is said, and the labels of all frames by head, in order."""
    talk = streamed(item.conversation, [times_s])
    said, labels = [], {}
    for turn in talk.turns:
        if turn.role == "stream":
            said.append(turn.parts[0].frames)
            for head, values in labels_of(turn, times_s).items():
                labels.setdefault(head, []).extend(values)
        else:
            said.append(turn.text)
    return said, labels


def film():
    return Medium(medium_id="v", source=Path("v.mp4"))


def row_of(values):
    return Row(Path("train.json"), "caption 0", values)


def query(text):
    return Said("user", text, 0.0)


def talk_of(turns):
    return Conversation(tuple(turns), (film(),))


def test_captions_are_said_behind_the_frame_at_their_time(tmp_path):
    (item,) = read(DenseCaptionReader(), tmp_path, {"v.mp4": {"0": [CAPTION, LATER]}})
    said, labels = run(item, grid(10))
    assert item.item_id == "v.mp4/0"
    assert item.film.source == tmp_path / "videos" / "v.mp4"
    assert said[0] in NARRATE
    assert said[1:] == [(0, 8), "She stirs.", (8, 17), "She pours.", (17, 20)]
    # from the middle of the part (3 s, 7 s) up to the caption (3.1 s, 7.6 s), then nothing more
    positive = [k / 2 for k, label in enumerate(labels["informative"]) if label]
    assert positive == [3.0, 3.5, 7.0, 7.5, 8.0]
    assert "relevance" not in labels


@given(
    span=st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted),
    share=st.floats(0, 1),
    before=st.integers(0, 40),
)
def test_informative_frames_are_those_that_the_spec_counts_cut_to_the_turn(span, share, before):
    start, stop = span
    inserted = start + share * (stop - start)
    first = {"text": "a", "time": before, "timespan": [before, before]}
    second = {"text": "b", "time": inserted, "timespan": span}
    ordered = sorted((first, second), key=lambda caption: caption["time"])
    item = DenseCaptionReader().narrated(
        "v", film(), [row_of(caption) for caption in ordered], "train"
    )
    times_s = grid(60)
    turns = streamed(item.conversation, [times_s]).turns
    spoken = [(turn, turns[k - 1]) for k, turn in enumerate(turns) if turn.role == "assistant"]
    for answer, stream in spoken:
        mine = first if answer.text == "a" else second
        frames = stream.parts[0].frames[1] - stream.parts[0].frames[0]
        # k = (ceil(time) − ceil(middle))·fps + 1 of the last frames, at least one, at most all
        k = math.ceil(mine["time"] * 2) - math.ceil(sum(mine["timespan"])) + 1
        expected = min(max(k, 1), frames)
        if {first["time"], second["time"]} == {mine["time"]}:
            continue  # of two at one frame the second stays, and both are awaited
        labels = labels_of(stream, times_s)["informative"]
        assert labels == [0] * (frames - expected) + [1] * expected or len(spoken) == 1


def test_captions_without_a_time_are_drawn_in_the_third_quarter_of_their_part(tmp_path):
    rows = {f"{n}.mp4": {"0": [{"text": "a", "timespan": [2, 6]}]} for n in range(60)}
    items = read(DenseCaptionReader(), tmp_path, rows)
    times = [item.conversation.turns[1].until_s for item in items]
    assert all(4 <= time_s <= 5 for time_s in times)
    assert max(times) - min(times) > 0.8
    again = DenseCaptionReader()(tmp_path, "train", None)
    assert [item.conversation for item in again] == [item.conversation for item in items]
    other = DenseCaptionReader(seed=7)(tmp_path, "train", None)
    assert [item.conversation for item in other] != [item.conversation for item in items]


@pytest.mark.parametrize(
    ("share", "low", "high"), [(1, 5, 5), (0.25, 2, 2), ([0, 0.5], 1, 3), (None, 3.1, 3.1)]
)
def test_captions_may_be_said_at_another_share_of_their_part(tmp_path, share, low, high):
    (item,) = read(DenseCaptionReader(insert_at=share), tmp_path, {"v.mp4": {"0": [CAPTION]}})
    assert low <= item.conversation.turns[1].until_s <= high


@pytest.mark.parametrize(("share", "first_s"), [(0, 1.0), (0.25, 2.0), (0.5, 3.0), (1, 3.5)])
def test_an_answer_may_be_awaited_from_another_share_of_its_part(tmp_path, share, first_s):
    reader = DenseCaptionReader(awaited_from=share)
    (item,) = read(reader, tmp_path, {"v.mp4": {"0": [CAPTION]}})
    labels = run(item, grid(10))[1]["informative"]
    assert [k / 2 for k, label in enumerate(labels) if label] == [
        first_s + k / 2 for k in range(int((3.5 - first_s) * 2) + 1)
    ]


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_an_answer_cannot_be_awaited_outside_its_part(share):
    with pytest.raises(ConfigError, match=r"data\.reader\.awaited_from"):
        MAGQAReader(awaited_from=share)


@pytest.mark.parametrize("share", [2, [0.5, 0.2], [0.1, 0.2, 0.3], "half", True])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(ConfigError, match=r"data\.reader\.insert_at"):
        DenseCaptionReader(insert_at=share)


def test_a_caption_at_the_first_frame_and_one_that_repeats_another(tmp_path):
    rows = [{"time": 0, "text": "a", "timespan": [0, 0]}, {"time": 2, "text": "a"}, LATER]
    (item,) = read(DenseCaptionReader(), tmp_path, {"v.mp4": {"0": rows}})
    said, labels = run(item, grid(10))
    assert said[1:] == [(0, 1), "a", (1, 17), "She pours.", (17, 20)]
    assert labels["informative"][:2] == [1, 0]


def test_a_film_of_one_frame_has_its_last_caption(tmp_path):
    (item,) = read(DenseCaptionReader(), tmp_path, {"v.mp4": {"0": [CAPTION, LATER]}})
    said, labels = run(item, [0.0])
    assert said[1:] == [(0, 1), "She pours."]
    assert labels == {"informative": [1]}


def test_a_film_that_is_cut_short_is_awaited_no_more(tmp_path):
    (item,) = read(DenseCaptionReader(), tmp_path, {"v.mp4": {"0": [CAPTION, LATER]}})
    said, labels = run(item, grid(6))
    assert said[1:] == [(0, 8), "She stirs.", (8, 12)]
    assert labels["informative"][8:] == [0] * 4


def test_films_end_behind_the_last_caption_in_training_as_published(tmp_path):
    rows = {"v.mp4": {"0": [CAPTION], "1": []}}
    reader = DenseCaptionReader(rest=False)
    (trained,) = read(reader, tmp_path, rows)
    (tested,) = read(reader, tmp_path, rows, "test")
    assert run(trained, grid(10))[0][1:] == [(0, 8), "She stirs."]
    assert run(tested, grid(10))[0][1:] == [(0, 8), "She stirs.", (8, 20)]


def test_what_is_not_to_be_learned_is_said_and_awaited_all_the_same(tmp_path):
    rows = {"v.mp4": {"0": [{**CAPTION, "learn": False}, LATER]}}
    (item,) = read(DenseCaptionReader(system="Watch."), tmp_path, rows)
    assert item.conversation.turns[0].text == "Watch."
    answers = [turn for turn in item.conversation.turns if turn.role == "assistant"]
    assert [turn.learned for turn in answers] == [False, True]
    assert sum(run(item, grid(10))[1]["informative"]) == 5


def test_the_truth_of_captions_is_a_row_of_a_truth_file(tmp_path):
    (item,) = read(DenseCaptionReader(), tmp_path, {"v.mp4": {"0": [LATER, CAPTION]}}, "test")
    truth = json.loads(json.dumps(item.meta[TRUTH]))
    assert truth["question_id"] == "v.mp4/0"
    assert truth["video_id"] == "v.mp4"
    assert truth["events"][1] == {"start_s": 1, "end_s": 5, "text": "She stirs."}
    assert truth["queries"][0]["time_s"] == 0


def test_answers_follow_their_question_in_a_film_that_begins_shortly_before_it(tmp_path):
    later = [{**ASKED, "time": 30.2}, {**ANSWER, "time": 34, "timespan": [32, 36]}]
    rows = [{"video_uid": f"{n}.mp4", "conversation": later} for n in range(40)]
    items = read(MAGQAReader(fps=2.0), tmp_path, rows)
    starts = [item.film.start_s for item in items]
    before = [(30.5 - start_s) * 2 for start_s in starts]
    assert {int(frames) for frames in before} <= {*range(21)}
    assert before.count(20) > 20  # as of 61 there might be 20 are seen
    item = items[before.index(20)]
    said, labels = run(item, grid(40, start_s=item.film.start_s))
    assert said == [(0, 20), "What does she do?", (20, 28), "She stirs.", (28, 39)]
    assert [k for k, label in enumerate(labels["informative"]) if label] == [27]


def test_a_lone_frame_before_a_question_teaches_nothing(tmp_path):
    rows = [{"video_uid": f"{n}.mp4", "conversation": [ASKED, ANSWER]} for n in range(30)]
    items = read(MAGQAReader(fps=2.0), tmp_path, rows)
    of = {round((1.5 - item.film.start_s) * 2): item.conversation.turns for item in items}
    assert {*of} == {0, 1, 2, 3}
    assert of[0][0].role == "user"
    assert of[1][0].labels == ()
    assert of[2][0].labels[0].spans_s == ()


def test_a_film_begins_at_its_start_in_a_test_and_where_all_is_to_be_seen(tmp_path):
    row = {"video_uid": "v.mp4", "video_start_time": 0.5, "conversation": [ASKED, ANSWER]}
    (tested,) = read(MAGQAReader(fps=2.0), tmp_path, [row], "test")
    (whole,) = read(MAGQAReader(fps=2.0, lead_in=None), tmp_path, [row])
    (without,) = read(MAGQAReader(lead_in=None), tmp_path, [{**row, "video_start_time": None}])
    assert [one.film.start_s for one in (tested, whole, without)] == [0.5, 0.5, 0.0]


def test_a_film_begins_where_its_row_says_at_the_latest(tmp_path):
    row = {"video_start_time": 0.5, "conversation": [ASKED, ANSWER]}
    rows = [{"video_uid": f"{n}.mp4", **row} for n in range(30)]
    items = read(MAGQAReader(fps=2.0), tmp_path, rows)
    assert {item.film.start_s for item in items} == {0.0, 0.5}


def test_several_questions_and_answers_of_a_film_stand_in_their_order(tmp_path):
    second = {**ASKED, "time": 6, "content": "And now?"}
    again = {**ANSWER, "time": 8, "timespan": [7, 9]}
    rows = [{"video_uid": "v.mp4", "conversation": [ASKED, ANSWER, second, again]}]
    (item,) = read(MAGQAReader(lead_in=0, fps=2.0), tmp_path, rows)
    said, _ = run(item, grid(10, start_s=item.film.start_s))
    # the same answer to another question is no repetition
    assert said == ["What does she do?", (0, 6), "She stirs.", (6, 9), "And now?",
                    (9, 14), "She stirs.", (14, 17)]  # fmt: skip


def test_the_published_test_has_answers_beside_its_conversation(tmp_path):
    row = {
        "question_id": 17,
        "video": "v.mp4",
        "conversation": [{**ASKED, "time": 0}],
        "answer": [{"content": "She stirs.", "time": [2, 6]}],
    }
    (item,) = read(MAGQAReader(), tmp_path, [row], "test")
    assert item.item_id == "17"
    assert 4 <= item.conversation.turns[1].until_s <= 5
    assert item.meta[TRUTH]["events"] == [{"start_s": 2.0, "end_s": 6.0, "text": "She stirs."}]
    assert item.meta[TRUTH]["queries"] == [{"time_s": 0.0, "text": "What does she do?"}]


def test_a_search_labels_the_frames_of_its_spans(tmp_path):
    spans = [[6.2, 8], [1.3, 3.9], [3, 4.4]]
    row = {"video_uid": "v.mp4", "query": "she {stirs}", "timestamps": spans}
    (item,) = read(GroundingReader(fps=2.0), tmp_path, [row])
    said, labels = run(item, grid(10))
    assert said[0] in [prompt.replace("{}", "she {stirs}") for prompt in FIND]
    assert said[1:] == [(0, 20)]
    relevant = [k for k, label in enumerate(labels["relevance"]) if label]
    assert relevant == [2, 3, 4, 5, 6, 7, 12, 13, 14, 15]
    assert "informative" not in labels
    assert item.meta[TRUTH]["events"] == [
        {"start_s": 1.3, "end_s": 4.4, "text": ""},
        {"start_s": 6.2, "end_s": 8, "text": ""},
    ]


@given(
    spans=st.lists(st.tuples(st.floats(0, 30), st.floats(0, 30)).map(sorted), max_size=4),
    fps=st.sampled_from([0.5, 1 / 3, 1.0, 2.0]),
    film_fps=st.sampled_from([24.0, 25.0, 23.976, 29.97]),
)
def test_relevant_frames_are_floor_to_floor_minus_one_in_films_of_any_rate(spans, fps, film_fps):
    asked = GroundingReader(fps=fps)
    frames = range(math.floor(40 * fps))
    # a frame of the film is shown from its own time on, at or before the moment that is sampled
    times_s = [math.floor(k / fps * film_fps + 1e-6) / film_fps for k in frames]
    expected = {
        k
        for a, b in merged(map(tuple, spans))
        for k in range(int(a * fps + 1e-6), max(int(b * fps + 1e-6), int(a * fps + 1e-6) + 1))
    }
    turns = asked.searched(query("x"), "v", film(), merged(map(tuple, spans)), "train")
    labels = labels_of(streamed(talk_of(turns), [times_s]).turns[-1], times_s)["relevance"]
    assert [k for k, label in enumerate(labels) if label] == sorted(expected & {*frames})


def test_without_a_rate_relevant_frames_are_those_within_the_seconds(tmp_path):
    row = {"video_uid": "v.mp4", "query": "she stirs", "timestamps": [[1.3, 4]]}
    (item,) = read(GroundingReader(), tmp_path, [row], "test")
    said, labels = run(item, grid(10))
    assert said[0] == "she stirs"  # a test asks by the plain words
    assert [k / 2 for k, label in enumerate(labels["relevance"]) if label] == [
        1.5, 2, 2.5, 3, 3.5, 4,
    ]  # fmt: skip


def test_prompts_are_drawn_by_seed_and_item_and_may_be_ones_own(tmp_path):
    rows = [{"video_uid": f"{n}.mp4", "query": "q", "timestamps": []} for n in range(200)]
    items = read(GroundingReader(), tmp_path, rows)
    prompts = [item.prompt for item in items]
    assert {*prompts} == {prompt.replace("{}", "q") for prompt in FIND}
    assert [item.prompt for item in GroundingReader()(tmp_path, "train", None)] == prompts
    own = GroundingReader(prompts=["Where is {}?"])(tmp_path, "train", None)
    assert {item.prompt for item in own} == {"Where is q?"}
    assert run(items[0], grid(4))[1] == {"relevance": [0] * 8}


@pytest.mark.parametrize("prompts", [[], ["no place"], ["{} and {}"], [" "]])
def test_prompts_that_cannot_be_are_refused(prompts):
    with pytest.raises(ConfigError, match=r"data\.reader\.prompts"):
        GroundingReader(prompts=prompts)


def test_the_published_list_of_charades_and_its_lines_are_the_same(tmp_path):
    reader = CharadesSTAReader(fps=2.0, test="a.txt")
    line = "3MSZA 24.3 30.4##person turn a light on.\n\n"
    (of_line,) = read(reader, tmp_path, line, "test", "a.txt")
    listed = {
        "question_id": "q1",
        "video": "3MSZA",
        "conversation": [{"role": "user", "content": "person turn a light on.", "time": 0}],
        "timestamps": [[24.3, 30.4]],
    }
    (of_list,) = read(CharadesSTAReader(fps=2.0), tmp_path, [listed], "test")
    assert of_line.conversation == of_list.conversation
    assert of_line.film.source == tmp_path / "videos" / "3MSZA.mp4"
    assert (of_line.item_id, of_list.item_id) == ("3MSZA, line 1", "q1")
    assert sum(run(of_line, grid(40))[1]["relevance"]) == 60 - 48


def test_a_share_of_the_films_of_training_is_for_validation(tmp_path):
    lines = "".join(f"F{n % 50} 1 2##sentence {n}.\n" for n in range(100))
    reader = CharadesSTAReader(held_out=0.2, train="train.txt", test="test.txt")
    train = read(reader, tmp_path, lines, "train", "train.txt")
    val = reader(tmp_path, "val", None)
    (tested,) = read(reader, tmp_path, "F0 1 2##s.\n", "test", "test.txt")
    names = [{item.video_id for item in items} for items in (train, val)]
    assert not names[0] & names[1]
    assert len(train) + len(val) == 100
    assert 0 < len(names[1]) < 25
    assert tested.video_id == "F0"


def highlights(**values):
    row = {"qid": 8, "query": "a dog runs", "vid": "v_1.0_9.0", "duration": 12,
           "relevant_windows": [[4, 8]], "relevant_clip_ids": [2, 3],
           "saliency_scores": [[4, 3, 1], [0, 2, 4]]}  # fmt: skip
    return {key: value for key, value in (row | values).items() if value is not None}


def test_highlights_have_windows_to_learn_and_ratings_as_truth(tmp_path):
    (item,) = read(QVHighlightsReader(fps=1.0), tmp_path, [highlights()], "test")
    assert run(item, grid(12, 1.0))[1]["relevance"] == [0] * 4 + [1] * 4 + [0] * 4
    assert item.meta[TRUTH] == {
        "question_id": "8",
        "video_id": "v_1.0_9.0",
        "duration_s": 12,
        "clips": [2, 3],
        "ratings": [[4, 3, 1], [0, 2, 4]],
    }
    clips = highlights(relevant_windows=None)
    assert read(QVHighlightsReader(fps=1.0), tmp_path, [clips], "test")[0] == item


def test_highlights_whose_truth_is_secret_teach_nothing(tmp_path):
    secret = highlights(relevant_windows=None, relevant_clip_ids=None, saliency_scores=None)
    (item,) = read(QVHighlightsReader(), tmp_path, [secret], "test")
    assert run(item, grid(12)) == (["a dog runs", (0, 24)], {})
    assert item.meta == {}


def test_the_steps_of_youcook2_are_those_of_either_file(tmp_path):
    steps = [("spread butter", 2, 6), ("fry it", 8, 20)]
    films = {
        "GLd3": {
            "subset": "validation",
            "annotations": [
                {"id": n, "segment": [a, b], "sentence": text}
                for n, (text, a, b) in enumerate(steps)
            ],
        },
        "other": {"subset": "testing", "annotations": []},
        "train": {"subset": "training", "annotations": [{"segment": [0, 1], "sentence": "go"}]},
    }
    by_step = {
        f"GLd3_{n}": {"video": "GLd3", "start_time": a, "end_time": b, "caption": text}
        for n, (text, a, b) in enumerate(steps)
    }
    reader = YouCook2Reader(folder="youcook2")
    (own,) = read(reader, tmp_path, {"database": films}, "test", "youcook2/test.json")
    (malmm,) = read(reader, tmp_path, by_step, "val", "youcook2/val.json")
    assert own == malmm
    assert run(own, grid(24, 0.5))[0][2::2] == ["spread butter", "fry it"]
    (trained,) = read(reader, tmp_path, {"database": films}, "train", "youcook2/train.json")
    assert trained.video_id == "train"


def test_the_real_steps_of_youcook2_are_read_film_by_film(real_data):
    items = YouCook2Reader(folder="youcook2", val="annotation/cap_val.json")(real_data, "val", None)
    assert len(items) == len({item.video_id for item in items})
    answers = [turn for item in items for turn in item.conversation.turns if turn.learned]
    assert 3000 < len(answers) <= 3184  # a step that repeats the one before is left out


@pytest.mark.parametrize(
    ("name", "reader", "items"),
    [("dense_captions", DenseCaptionReader, 1), ("magqa", MAGQAReader, 2),
     ("grounding", GroundingReader, 2)],
)  # fmt: skip
def test_what_the_docs_show_of_a_format_is_read(tmp_path, name, reader, items):
    page = (Path(__file__).parents[2] / "docs" / "watched_films.md").read_text()
    (example,) = re.findall(rf"```json {name}\n(.*?)```", page, re.DOTALL)
    assert len(read(reader(), tmp_path, example)) == items


BROKEN = [
    (DenseCaptionReader, {"v": {"0": [{"text": "a"}]}}, "keys 'time' and 'timespan' are"),
    (DenseCaptionReader, {"v": {"0": [{"time": "x", "text": "a"}]}}, "'time' must be a number"),
    (DenseCaptionReader, {"v": {"0": [{"time": 1}]}}, "key 'text' is missing"),
    (DenseCaptionReader, {"v": {"0": [{**CAPTION, "timespan": [5, 1]}]}}, "'timespan' must be"),
    (DenseCaptionReader, {"v": {"0": [{**CAPTION, "learn": 1}]}}, "'learn' must be true or false"),
    (DenseCaptionReader, {"v": {"0": "no"}}, "'0' must be a list of objects"),
    (DenseCaptionReader, {"../v": {"0": [CAPTION]}}, "'video': '../v' leads out"),
    (DenseCaptionReader, {"v": [CAPTION]}, "must be a JSON object, got list"),
    (MAGQAReader, [{"video_uid": "v", "conversation": [ANSWER]}], "begin with a question"),
    (MAGQAReader, [{"video_uid": "v", "conversation": []}], "begin with a question"),
    (MAGQAReader, [{"conversation": [ASKED]}], "key 'video' is missing"),
    (MAGQAReader, [{"video": "v", "conversation": [{**ASKED, "role": "bot"}]}], "'role' must be"),
    (MAGQAReader, [{"video": "v", "conversation": [ASKED], "answer": [{"content": "a"}]}],
     "key 'time' is missing"),
    (GroundingReader, [{"video": "v", "query": "q", "timestamps": [1, 2]}], "must be a start"),
    (GroundingReader, [{"video": "v", "query": "q", "timestamps": [[1, -2]]}], "got [1, -2]"),
    (GroundingReader, [{"video": "v", "query": "q", "timestamps": [[1, 2, 3]]}], "got [1, 2, 3]"),
    (GroundingReader, [{"video": "v", "query": "q"}], "has none of the keys timestamps"),
    (GroundingReader, [{"video": "v", "query": "q", "timestamps": None}], "'timestamps' is miss"),
    (GroundingReader, [{"video": "v", "timestamps": [[1, 2]]}], "key 'query' is missing"),
    (GroundingReader, [{"video": "v", "conversation": [ASKED, ASKED], "timestamps": [[1, 2]]}],
     "has 2 turns of the user"),
    (QVHighlightsReader, [highlights(saliency_scores=[[1, 2, 3]])], "for each of 2 clips"),
    (QVHighlightsReader, [highlights(saliency_scores=[[1, 2, 9], [0, 0, 0]])], "from 0 to 4"),
    (QVHighlightsReader, [highlights(relevant_clip_ids=[2, 6])], "from 0 to 5"),
    (QVHighlightsReader, [highlights(relevant_clip_ids=[2, 2])], "different whole numbers"),
    (QVHighlightsReader, [highlights(duration=None)], "key 'duration' is missing"),
    (QVHighlightsReader, [highlights(relevant_windows=None, relevant_clip_ids=None,
                                     saliency_scores=None)], "give one of them"),
    (YouCook2Reader, {"database": {"v": {"subset": "new"}}}, "'subset' must be training"),
    (YouCook2Reader, {"database": {"v": {"subset": "training"}}}, "key 'captions' is missing"),
    (YouCook2Reader, {"s": {"video": "v", "start_time": 5, "end_time": 1, "caption": "c"}},
     "end_time must be after start_time"),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "rows", "message"), BROKEN)
def test_a_row_that_cannot_be_used_is_named_with_its_key(tmp_path, reader, rows, message):
    with pytest.raises(DataError) as error:
        read(reader(), tmp_path, rows)
    assert message in str(error.value)
    assert str(tmp_path / "train.json") in str(error.value)


@pytest.mark.parametrize("line", ["3MSZA 24.3##a", "no marks", "F one two##a", "F 5 2##a"])
def test_a_line_that_cannot_be_used_is_named(tmp_path, line):
    reader = CharadesSTAReader(train="train.txt")
    with pytest.raises(DataError, match=r"train\.txt, line 2"):
        read(reader, tmp_path, f"\n{line}\n", "train", "train.txt")


def test_good_rows_are_read_beside_broken_ones(tmp_path, caplog):
    rows = {"v": {"0": [CAPTION]}, "w": {"0": [{"text": "a"}]}}
    assert len(read(DenseCaptionReader(), tmp_path, rows)) == 1
    assert "1 entries left out beside 1 items" in caplog.text


def test_a_task_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="have no tasks"):
        DenseCaptionReader()(tmp_path, "train", "x")
