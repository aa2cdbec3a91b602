"""Conversations from Python: those of the command `chat`, apart from each other."""

import io
import json
import sys

import pytest

import mmavlm
from mmavlm import chat
from mmavlm.core.errors import ConfigError, DataError, VideoError
from mmavlm.loaded.places import kind_of

QUESTIONS = ["what happens?", "who is she?"]
LONGER = {"stage.min_new_tokens": 6, "stage.max_new_tokens": 6}


@pytest.fixture(scope="module")
def model(trained):
    return mmavlm.load(trained, **LONGER)


@pytest.fixture(scope="module")
def clips(films):
    return sorted((films / "lvu/videos").glob("*.mp4"))[:2]


def test_answers_are_those_of_the_command(model, trained, clips, run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(QUESTIONS) + "\n"))
    best = f"checkpoint={trained}/checkpoints/best.ckpt"
    settings = [f"{name}={value}" for name, value in LONGER.items()]
    assert run(chat, best, *settings, f"video={clips[0]}", "format=json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    talk = model.chat().show(clips[0])
    for row, question in zip(rows, QUESTIONS, strict=True):
        said = talk.say(question)
        assert str(said) == row["answer"]
        assert said.log_prob == pytest.approx(row["log_prob"], rel=1e-5)
    assert [turn.text for turn in talk.turns[::2]] == QUESTIONS


def test_conversations_of_one_model_do_not_mix(model, clips):
    alone = []
    for clip in clips:
        talk = model.chat().show(clip)
        alone.append([talk.say(question).log_prob for question in QUESTIONS])
    one, other = (model.chat().show(clip) for clip in clips)
    turns = [(one.say(q).log_prob, other.say(q).log_prob) for q in QUESTIONS]
    assert [list(found) for found in zip(*turns, strict=True)] == alone


def test_the_pieces_of_an_answer_are_the_answer(model, clips):
    talk, other = (model.chat().show(clips[0]) for _ in range(2))
    pieces = [*talk.stream(QUESTIONS[0])]
    assert "".join(pieces) == other.say(QUESTIONS[0]).text
    assert "" not in pieces
    assert talk.turns == other.turns


def test_who_leaves_in_mid_answer_takes_the_question_back(model, clips):
    talk = model.chat().show(clips[0])
    pieces = talk.stream(QUESTIONS[0])
    next(pieces)
    with pytest.raises(DataError, match="an answer of this conversation is still being given"):
        talk.say(QUESTIONS[1])
    assert model.chat().say(QUESTIONS[1]).text, "others go on meanwhile"
    pieces.close()
    assert talk.turns == ()
    assert repr(talk) == f"<conversation of 0 questions; {clips[0].name} waits to be shown>"
    assert talk.say(QUESTIONS[0]).log_prob == model.chat().show(clips[0]).say(QUESTIONS[0]).log_prob


def test_a_mistake_in_a_streamed_question_is_told_where_its_pieces_are_taken(model):
    talk = model.chat()
    with pytest.raises(DataError, match="is empty; give it a text"):
        [*talk.stream("")]
    with pytest.raises(ConfigError, match="set num_beams=1 to hear it word by word"):
        [*model.chat(num_beams=2).stream("what?")]
    assert talk.say("what?").text


def test_a_conversation_goes_back_and_is_saved_and_loaded(model, clips, tmp_path):
    talk = model.chat().show(clips[0])
    said = [talk.say(question).text for question in QUESTIONS]
    assert talk.back() == QUESTIONS[1]
    talk.save(tmp_path / "talk.json")
    later = model.chat()
    assert later.load(tmp_path / "talk.json") is None
    assert later.turns == talk.turns
    assert later.say(QUESTIONS[1]).text == said[1]


@pytest.mark.parametrize(("name", "kind"), [
    ("a.mp4", "film"), ("a.JPG", "picture"), ("a.png", "picture"), ("a.wav", "sound"),
    ("frames", "film"),
])  # fmt: skip
def test_what_a_file_is_follows_from_its_ending(name, kind):
    assert kind_of(name) == kind


def test_mistakes_are_told(model, clips):
    talk = model.chat()
    with pytest.raises(VideoError, match=r"gone.mp4 does not exist"):
        talk.show("gone.mp4")
    with pytest.raises(DataError, match="is to be shown from 3 to 2 s"):
        talk.show(clips[0], start_s=3, end_s=2)
    with pytest.raises(
        DataError, match="there is no question 0; expected one of those asked: none"
    ):
        talk.back()
    with pytest.raises(ConfigError, match="num_beams must be at least 1"):
        model.chat(num_beams=0)
    with pytest.raises(ConfigError, match=r"show it: chat\(\)\.show"):
        model.chat(video="a.mp4")


def test_an_answer_that_was_cut_is_told_from_one_that_ended(model, clips):
    talk = model.chat(**{"stage.min_new_tokens": 0, "stage.max_new_tokens": 3}).show(clips[0])
    assert talk.say(QUESTIONS[0]).cut
    llm = model.backbone.llm

    def end_at_once(module, inputs, logits):
        logits[..., llm.answers.end_ids] += 1e4
        return logits

    hook = llm.model.get_output_embeddings().register_forward_hook(end_at_once)
    try:
        assert not talk.say(QUESTIONS[1]).cut
    finally:
        hook.remove()
