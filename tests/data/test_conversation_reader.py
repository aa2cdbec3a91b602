"""One's own conversations: rows as `Conversation.as_json` writes them, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import DataError
from mmavlm.core.medium import FrameGrid, Medium
from mmavlm.core.turns import Shown, Turn
from mmavlm.data.readers import ConversationReader

FILM = Medium(medium_id="dog", source=Path("clips/dog.mp4"), start_s=1.5, end_s=4.0)
GRID = Medium(medium_id="g", source=Path("g"), grid=FrameGrid(30, "segments"))
PICTURE = Medium(medium_id="bus.jpg", source=Path("bus.jpg"), kind="picture")
SOUND = Medium(medium_id="rain", source=Path("rain.wav"), kind="sound")
TALKS = [
    Conversation.question(FILM, "Who? Ça va 🐕", "A dog."),
    Conversation((Turn("user", ("Hello.",)), Turn("assistant", ("Hi.",), learned=True))),
    Conversation(
        (
            Turn("system", ("Be brief.",)),
            Turn("user", ("Is ", Shown(0), " like ", Shown(1), " or ", Shown(2), "?")),
            Turn("assistant", ("No.",)),
            Turn("user", (Shown(3), Shown(0)), guide="Who sings?"),
            Turn("assistant", ("Yes.",), learned=True),
        ),
        (PICTURE, FILM, GRID, SOUND),
    ),
]
ASKED = {"role": "user", "parts": [{"medium": 0}, "Who?"]}
SAID = {"role": "assistant", "parts": ["A dog."]}
ROW = {"media": [{"source": "a.mp4"}], "turns": [ASKED, SAID]}


def read(root, *rows, task=None, **settings):
    (root / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ConversationReader(**settings).read(root, "train", task)


@pytest.mark.parametrize("talk", TALKS, ids=["film", "text alone", "several media"])
def test_a_conversation_is_read_as_it_was_written(tmp_path, talk):
    (item,) = read(tmp_path, talk.as_json()).items
    media = tuple(
        replace(m, source=m.source.relative_to(tmp_path)) for m in item.conversation.media
    )
    assert replace(item.conversation, media=media) == talk
    assert item.references == (talk.target,)


def test_all_answers_are_learned_unless_some_say_whether_they_are(tmp_path):
    turns = [ASKED, SAID, {"role": "user", "parts": ["Why?"]}, SAID]
    (item,) = read(tmp_path, {**ROW, "turns": turns}).items
    assert [turn.learned for turn in item.conversation.turns] == [False, True] * 2
    turns[3] = {**SAID, "learned": True}
    (item,) = read(tmp_path, {**ROW, "turns": turns}).items
    assert [turn.learned for turn in item.conversation.turns] == [False, False, False, True]


def test_rows_have_ids_tasks_and_other_right_answers(tmp_path):
    rows = [{**ROW, "id": "q1", "task": "qa", "references": ["dog", "a hound"]}, ROW]
    first, second = read(tmp_path, *rows).items
    assert (first.item_id, first.task) == ("q1", "qa")
    assert first.references == ("A dog.", "dog", "a hound")
    assert (second.item_id, second.task, second.video_id) == ("line 2", "open", "a.mp4")
    assert [item.item_id for item in read(tmp_path, *rows, task="qa").items] == ["q1"]


def test_keys_of_other_names_are_read_where_they_are_told(tmp_path):
    row = {"media": ROW["media"], "talk": ROW["turns"]}
    assert len(read(tmp_path, row, keys={"turns": "talk"}).items) == 1


def medium(**values):
    return {**ROW, "media": [values]}


def turns(*said):
    return {**ROW, "turns": [*said]}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (medium(source="../a.mp4"), r"medium 0: 'source': '\.\./a\.mp4' leads out of"),
        (medium(id="a"), r"medium 0: key 'source' is missing or empty"),
        (medium(source="a.mp4", kind="smell"), r"medium of kind 'smell'; expected one of film"),
        (medium(source="a.mp4", start_s=4, end_s=2), r"end_s must be after start_s, got 4 to 2"),
        (medium(source="a", grid={"frames": 3, "sampling": "x"}), r"a grid is sampled by 'x'"),
        ({**ROW, "media": "a.mp4"}, r"'media' must be a list of objects, got 'a\.mp4'"),
        ({**ROW, "media": []}, r"'turns': a conversation with 0 media shows the numbers \[0\]"),
        ({**ROW, "media": ROW["media"] * 2}, r"'turns': a conversation with 2 media shows"),
        (turns(SAID), r"'turns': turn 1 of a conversation is the assistant's; expected one of"),
        (turns(ASKED), r"'turns' ends with the user's; expected an answer of the assistant"),
        (turns(), r"'turns': a conversation has no turn of the user"),
        (turns({**ASKED, "role": "human"}, SAID), r"turn 0: a turn has the role 'human'; expected"),
        (turns({"role": "user"}, SAID), r"turn 0: key 'parts' is missing or empty"),
        (turns({**ASKED, "parts": "Who?"}, SAID), r"'parts' must be a list, got 'Who\?'; a turn"),
        (turns({**ASKED, "parts": []}, SAID), r"turn 0: the turn of the user is empty"),
        (turns({**ASKED, "parts": [" "]}, SAID), r"turn 0: 'parts' holds what is blank: ' '"),
        (turns({**ASKED, "parts": [None]}, SAID), r"'parts' holds what must be a text, got None"),
        (turns({**ASKED, "parts": [{"medium": "0"}]}, SAID), r"\{'medium': '0'\}; a medium is sh"),
        (turns({**ASKED, "parts": [{"medium": True}]}, SAID), r"\{'medium': True\}; a medium is"),
        (turns({**ASKED, "parts": [{"film": 0}]}, SAID), r"\{'film': 0\}; a medium is shown by"),
        (turns(ASKED, {**SAID, "parts": [{"medium": 0}]}), r"the assistant shows a medium; only"),
        (turns({**ASKED, "learned": True}, SAID), r"turn of the user is learned; only"),
        (turns(ASKED, {**SAID, "learned": "yes"}), r"'learned' must be true or false, got 'yes'"),
        ([], r"must be a JSON object, got list"),
    ],
)
def test_a_row_that_cannot_be_used_stops_a_run_and_is_named(tmp_path, row, why):
    read(tmp_path, ROW, row)
    with pytest.raises(DataError, match=why) as refused:
        ConversationReader()(tmp_path, "train", None)
    assert "train.jsonl, line 2" in str(refused.value)


def test_an_id_stands_for_one_medium(tmp_path):
    rows = [medium(id="a", source="a.mp4"), medium(id="a", source="b.mp4")]
    (reason,) = read(tmp_path, *rows).skipped.values()
    assert "line 2, medium 0: 'id' 'a' was that of" in reason
    assert len(read(tmp_path, *rows[:1] * 2).items) == 2
