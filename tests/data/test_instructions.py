"""Sets of instructions, captioned pictures and captioned sounds: rows → conversations."""

import json
import re

import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Reader
from mmavlm.core.turns import Shown
from mmavlm.data.readers import LlavaReader, MiniGPT4Reader, SoundReader, VideoChatReader

TALK = [
    {"from": "human", "value": "<image>\nWhat is shown?"},
    {"from": "gpt", "value": "A bus."},
    {"from": "human", "value": "Is it full? Ça va 公車 🚌"},
    {"from": "gpt", "value": "No."},
]
ROW = {"id": "1", "image": "000000033471.jpg", "conversations": TALK}
PAIRS = {"video": "000001_000050/1066682446.mp4", "QA": [{"q": "Who?", "a": "A cat."}]}


def llava(root, *rows, **settings):
    (root / "train.json").write_text(json.dumps(rows))
    return LlavaReader(**settings).read(root, "train", None)


def videochat(root, *rows, **settings):
    (root / "train.json").write_text(json.dumps(rows))
    return VideoChatReader(**settings).read(root, "train", None)


def minigpt4(root, *rows, **settings):
    (root / "filter_cap.json").write_text(json.dumps({"annotations": rows}))
    return MiniGPT4Reader(**settings).read(root, "train", None)


def said(*texts, **media):
    """A row whose turns are by human and gpt in turn."""
    turns = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]
    return {"conversations": turns, **media}


def only(found):
    assert found.skipped == {}
    (item,) = found.items
    return item


def refusal(found):
    assert found.items == []
    (reason,) = found.skipped.values()
    return reason


def parts(item):
    return [turn.parts for turn in item.conversation.turns]


@pytest.mark.parametrize("reader", [LlavaReader, VideoChatReader, MiniGPT4Reader, SoundReader])
def test_they_are_readers_of_open_answers(reader, tmp_path):
    assert isinstance(reader(), Reader)
    assert reader().classes(tmp_path, None) == {}


def test_every_turn_is_read_and_every_answer_is_learned(tmp_path):
    item = only(llava(tmp_path, ROW))
    roles = [(turn.role, turn.learned) for turn in item.conversation.turns]
    assert roles == [("user", False), ("assistant", True)] * 2
    assert parts(item) == [(Shown(0), "What is shown?"), ("A bus.",), (TALK[2]["value"],), ("No.",)]
    assert (item.prompt, item.target, item.references) == (TALK[2]["value"], "No.", ("No.",))
    assert (item.task, item.film.kind) == ("instruct", "picture")


def test_pictures_lie_behind_a_prefix_in_a_folder_of_their_own(tmp_path):
    settings = {"images": "coco", "image_prefix": "COCO_train2014_"}
    item = only(llava(tmp_path, ROW, **settings))
    assert item.film.source == tmp_path / "coco" / "COCO_train2014_000000033471.jpg"
    item = only(llava(tmp_path, {**ROW, "image": "a/b.jpg"}, **settings))
    assert item.film.source == tmp_path / "coco" / "a" / "COCO_train2014_b.jpg"


@pytest.mark.parametrize(
    ("roles", "key"),
    [
        (("human", "gpt"), "conversations"),
        (("user", "assistant"), "conversations"),
        (("user", "assistant"), "messages"),
    ],
)
@pytest.mark.parametrize("names", [("from", "value"), ("role", "content")])
def test_sharegpt_s_spellings_say_the_same(tmp_path, roles, key, names):
    turns = [{names[0]: roles[n % 2], names[1]: turn["value"]} for n, turn in enumerate(TALK)]
    system = {names[0]: "system", names[1]: "Be brief."}
    item = only(llava(tmp_path, {"image": "000000033471.jpg", key: [system, *turns]}))
    plain = only(llava(tmp_path, ROW)).conversation
    assert item.conversation.turns[0].text == "Be brief."
    assert item.conversation.turns[1:] == plain.turns
    assert item.conversation.media == plain.media


def test_with_guide_only_the_instruction_is_read_by_what_looks_and_not_by_the_llm(tmp_path):
    talk = only(llava(tmp_path, ROW, guide_only=True)).conversation
    assert [turn.parts for turn in talk.turns[:2]] == [(Shown(0),), ("A bus.",)]
    assert [view.guide for view in talk.views] == ["What is shown?"]
    assert talk.turns[2].parts == (TALK[2]["value"],)  # shows nothing that it could guide


def test_with_show_again_each_question_has_a_view_of_its_own_before_or_behind(tmp_path):
    talk = [*TALK, *TALK[2:]]
    rows = [{**ROW, "id": str(n), "conversations": talk} for n in range(20)]
    items = llava(tmp_path, *rows, show_again=True).items
    asked = ["What is shown?", TALK[2]["value"], TALK[2]["value"]]
    places = set()
    for item in items:
        assert [view.guide for view in item.conversation.views] == asked
        assert len(item.conversation.media) == 1
        later = [turn.parts for turn in item.conversation.turns[2::2]]
        assert all({*parts} == {Shown(0), TALK[2]["value"]} for parts in later)
        places.add(tuple(parts.index(Shown(0)) for parts in later))
    assert places == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert items == llava(tmp_path, *rows, show_again=True).items


def test_media_stand_where_their_markers_are(tmp_path):
    asked = "Is <video> later than\n<image>\nand <image>?"
    media = {"image": ["a.jpg", "b.jpg"], "video": "c.mp4"}
    item = only(llava(tmp_path, said(asked, "Yes.", "<video>\nAnd this?", "No.",
                                     **{**media, "video": ["c.mp4", "d.mp4"]})))  # fmt: skip
    assert parts(item)[0] == (*("Is ", Shown(0), " later than", Shown(1), "and ", Shown(2), "?"),)
    assert parts(item)[2] == (Shown(3), "And this?")
    names = [(m.medium_id, m.kind) for m in item.conversation.media]
    assert names == [("c.mp4", "film"), ("a.jpg", "picture"), ("b.jpg", "picture"),
                     ("d.mp4", "film")]  # fmt: skip


@pytest.mark.parametrize("texts", [("<image> <image>", "Two."), ("  <image>\n<image>\n ", "Two.")])
def test_a_turn_may_be_nothing_but_media(tmp_path, texts):
    item = only(llava(tmp_path, said(*texts, images=["a.jpg", "b.jpg"])))
    assert parts(item)[0] == (Shown(0), Shown(1))


@pytest.mark.parametrize("asked", ["What?", "<video>\nWhat?", "<image>\nWhat?"])
def test_a_film_is_shown_first_without_a_marker_and_by_either_marker(tmp_path, asked):
    (tmp_path / "clip.MP4").touch()
    item = only(llava(tmp_path, said(asked, "A cat.", video="clip")))
    assert parts(item)[0] == (Shown(0), "What?")
    assert (item.film.kind, item.film.source) == ("film", tmp_path / "clip.MP4")


def test_a_row_may_be_text_alone_and_answers_may_spell_markers(tmp_path):
    item = only(llava(tmp_path, said("Which tag?", "Write <video> there.")))
    assert item.conversation.media == ()
    assert item.target == "Write <video> there."


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (said("<image> <image> Who?", "He.", image="a.jpg"),
         r"'conversations' has 2 <image>, 0 <video>, but there are 1 under 'image', 0 under 'vid"),
        (said("<image> Who?", "He.", images=["a.jpg", "b.jpg"]), r"1 <image>.* but .* 2 under"),
        (said("Who?", "He.", image="a.jpg", video="b.mp4"), r"0 <image>, 0 <video>, but there are"),
        (said("<image> Who?", "He."), r"1 <image>, 0 <video>, but there are 0 under 'image'"),
        (said("<video> Who?", "He.", image="a.jpg"), r"0 <image>, 1 <video>, but there are 1"),
        (said("Who?"), r"'conversations' ends with the user's turn; expected an answer"),
        (said("Who?", ""), r"turn 1: key 'value' is missing or empty"),
        (said("Who?", "  \n"), r"turn 1: 'value' is blank"),
        (said("Who?", ["He."]), r"turn 1: 'value' must be a text, got \['He\.'\]"),
        ({"conversations": [{"from": "bot", "value": "Who?"}]},
         r"turn 0: 'from' must be one of human, user, gpt, assistant, system, got 'bot'"),
        ({"conversations": [{"from": "gpt", "value": "He."}]},
         r"'conversations': turn 1 of a conversation is the assistant's; expected one of the user"),
        ({"conversations": [{"value": "Who?"}]}, r"turn 0: key 'from' is missing or empty"),
        ({"conversations": []}, r"'conversations' is an empty list; give turns"),
        ({"conversations": "Who?"}, r"'conversations' must be a list of objects, got 'Who\?'"),
        ({"image": "a.jpg"}, r"key 'conversations' is missing or empty; the row has \['image'\]"),
        (said("Who?", "He.", image="../a.jpg"), r"'image': '\.\./a\.jpg' leads out of"),
        (said("Who?", "He.", video="/a.mp4"), r"'video': '/a\.mp4' leads out of"),
        (said("Who?", "He.", video={"a": 1}), r"'video' must be a text, or a list of texts, got"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_is_left_out_by_place_and_key(tmp_path, row, why):
    reason = refusal(llava(tmp_path, row))
    assert f"{tmp_path / 'train.json'}, entry 0" in reason
    assert re.search(why, reason)


def test_an_id_may_be_there_again_as_in_llava_instruct(tmp_path):
    found = llava(tmp_path, ROW, ROW)
    assert [item.item_id for item in found.items] == ["1, entry 0", "1, entry 1"]


def test_what_is_left_out_is_counted_beside_the_rest(tmp_path, caplog):
    llava(tmp_path, ROW, {**ROW, "image": "../x.jpg"})
    assert len(LlavaReader()(tmp_path, "train", None)) == 1
    assert "1 entries left out beside 1 items" in caplog.text
    with pytest.raises(ConfigError, match=r"data\.task='x': instructions have no tasks"):
        LlavaReader()(tmp_path, "train", "x")


def test_videochat_s_pairs_are_a_conversation_about_one_film(tmp_path):
    film = tmp_path / "webvid" / PAIRS["video"]
    film.parent.mkdir(parents=True)
    film.touch()
    pairs = [*PAIRS["QA"], {"q": "Why?", "a": "It purrs."}]
    item = only(videochat(tmp_path, {**PAIRS, "QA": pairs}, videos="webvid"))
    assert parts(item) == [(Shown(0), "Who?"), ("A cat.",), ("Why?",), ("It purrs.",)]
    assert [turn.learned for turn in item.conversation.turns] == [False, True] * 2
    assert (item.film.source, item.film.kind, item.task) == (film, "film", "instruct")


def test_an_instruction_is_the_system_s_and_a_caption_needs_no_question(tmp_path):
    item = only(videochat(tmp_path, {**PAIRS, "QA": [{"i": "Watch it.", "q": "", "a": "A cat."}]}))
    roles = [(turn.role, turn.parts) for turn in item.conversation.turns]
    assert roles == [("system", ("Watch it.",)), ("user", (Shown(0),)), ("assistant", ("A cat.",))]


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([], r"'QA' is an empty list; give pairs"),
        ([{"q": "Who?"}], r"pair 0: key 'a' is missing or empty"),
        ([{"q": "Who?", "a": "He."}, {"q": "", "a": "She."}], r"pair 1: key 'q' is missing"),
        ([{"q": "Who?", "a": "He.", "i": "A"}, {"q": "Who?", "a": "He.", "i": "B"}],
         r"pair 1: 'i' is 'B', but 'A' in the first pair; a conversation has one instruction"),
        ({"q": "Who?", "a": "He."}, r"'QA' must be a list of objects"),
    ],
)  # fmt: skip
def test_pairs_that_cannot_be_are_left_out_by_place_and_key(tmp_path, pairs, why):
    assert re.search(why, refusal(videochat(tmp_path, {**PAIRS, "QA": pairs})))


def test_minigpt_4_s_pictures_are_described_with_a_prompt_or_without(tmp_path):
    entry = {"image_id": "GCC_train_000000000", "caption": "a bus 🚌"}
    item = only(minigpt4(tmp_path, entry))
    assert item.film.source == tmp_path / "image" / "GCC_train_000000000.jpg"
    assert (item.film.kind, item.task, item.references) == ("picture", "caption", ("a bus 🚌",))
    assert parts(item) == [(Shown(0),), ("a bus 🚌",)]
    item = only(minigpt4(tmp_path, {**entry, "image_id": 2}, prompt="Describe it."))
    assert parts(item) == [(Shown(0), "Describe it."), ("a bus 🚌",)]
    assert item.film.source.name == "2.jpg"


def test_pictures_without_a_caption_or_outside_are_left_out(tmp_path):
    entries = [{"image_id": "1"}, {"image_id": "../../x", "caption": "a"}, 3]
    reasons = [*minigpt4(tmp_path, *entries).skipped.values()]
    for reason, why in zip(reasons, ("'caption' is missing", "leads out", "JSON object, got int"),
                           strict=True):  # fmt: skip
        assert why in reason
    (tmp_path / "filter_cap.json").write_text("[]")
    with pytest.raises(DataError, match="must hold a JSON object, got a list"):
        MiniGPT4Reader()(tmp_path, "train", None)


def test_sounds_are_heard_with_a_prompt(tmp_path):
    (tmp_path / "sounds").mkdir()
    rows = [
        {"sound": "a/rain.wav", "caption": "Rain."},
        {"sound": "b.mp4", "caption": "A bark.", "id": "b", "start_s": "0:01", "end_s": 2},
    ]
    (tmp_path / "sounds" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = SoundReader()(tmp_path, "test", None)
    assert parts(first) == [(Shown(0), "what do you hear?"), ("Rain.",)]
    assert (first.film.kind, first.film.source) == ("sound", tmp_path / "a" / "rain.wav")
    assert (second.item_id, second.film.start_s, second.film.end_s) == ("b", 1.0, 2.0)
    assert first.conversation.turns[1].learned


def test_a_sound_s_row_that_cannot_be_used_stops_a_run(tmp_path):
    (tmp_path / "sounds").mkdir()
    row = {"sound": "../rain.wav", "caption": "Rain."}
    (tmp_path / "sounds" / "train.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=r"line 1: 'sound': .* leads out of"):
        SoundReader()(tmp_path, "train", None)


def held_out(root, split, share=0.2):
    return LlavaReader(held_out=share).read(root, split, None)


def test_of_one_file_a_share_is_held_out_by_what_is_shown(tmp_path):
    rows = [{**ROW, "id": str(n), "image": f"{n % 200}.jpg"} for n in range(400)]
    llava(tmp_path, *rows, {**ROW, "image": "../x.jpg"}, 3)
    found = {split: held_out(tmp_path, split) for split in ("train", "val", "test")}
    shown = {s: {i.film.medium_id for i in f.items} for s, f in found.items()}
    assert sum(len(f.items) for f in found.values()) == 400
    assert sum(map(len, shown.values())) == len(set.union(*shown.values())) == 200
    assert 20 < len(shown["val"]) < 60
    assert 20 < len(shown["test"]) < 60
    assert sum(len(f.skipped) for f in found.values()) == 2
    assert {split: len(LlavaReader().read(tmp_path, split, None).items) for split in ["train"]} == {
        "train": 400
    }


@pytest.mark.parametrize("share", [-0.1, 0.5, True, "0.1"])
def test_a_share_that_cannot_be_held_out_is_refused(share):
    with pytest.raises(ConfigError, match=r"data\.reader\.held_out must be a share of at least 0"):
        MiniGPT4Reader(held_out=share)
