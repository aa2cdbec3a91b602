"""The lines of a conversation: questions, commands, and what is printed of them."""

import json

import pytest
import torch

from mmavlm.core.generation import Generation
from mmavlm.run.ask import Ready
from mmavlm.run.chat import Chat, own_medium
from mmavlm.run.dialogue import COMMANDS, Dialogue, Growing
from support import tiny_backbone

GREEDY = Generation(num_beams=1, min_new_tokens=3, max_new_tokens=3)


@pytest.fixture(scope="module")
def model():
    backbone = tiny_backbone().eval()
    return Ready(backbone, backbone.llm, torch.device("cpu"), 3)


@pytest.fixture
def film(make_clip, monkeypatch):
    path = make_clip("my film.mp4")
    monkeypatch.chdir(path.parent)
    return path


@pytest.fixture
def follow(model, film, capsys):
    """A function that follows lines of a new conversation about a film; gives what was printed."""

    def follow(*lines, shown=True, **settings):
        chat = Chat(model, GREEDY, 4)
        if shown:
            chat.show(own_medium("film", str(film)))
        dialogue = Dialogue(chat, **settings)
        dialogue.run(f"{line}\n" for line in lines)
        printed = capsys.readouterr()
        return dialogue, printed.out, printed.err

    return follow


def test_each_line_is_a_question_and_its_answer_a_line(follow):
    dialogue, out, error = follow("what happens?", "", "  who is she? ", "/quit", "why?")
    turns = dialogue.chat.conversation.turns
    assert [turn.text for turn in turns[::2]] == ["what happens?", "who is she?"]
    assert out.splitlines() == [turn.text for turn in turns[1::2]]
    assert error == ""


def test_answers_that_grow_end_as_those_printed_at_once(follow):
    lines = ["what happens?", "who is she?"]
    _, at_once, _ = follow(*lines)
    _, grown, _ = follow(*lines, grows=True)
    assert grown == at_once


def test_answers_as_json_are_a_line_each_and_nothing_else(follow):
    dialogue, out, _ = follow("what happens?", "/back", "/help", "who is she?", as_json=True)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["question"] for row in rows] == ["what happens?", "who is she?"]
    assert rows[-1]["answer"] == dialogue.chat.conversation.target
    assert all(row["log_prob"] < 0 for row in rows)


def test_media_come_in_the_middle_and_stretches_by_their_bounds(follow):
    dialogue, _, error = follow(
        "/video 'my film.mp4'", "what happens?", '/video "my film.mp4" 0:01 2.5', "and here?",
        shown=False,
    )  # fmt: skip
    film, stretch = dialogue.chat.conversation.media
    assert (film.start_s, film.end_s) == (0, None)
    assert (stretch.start_s, stretch.end_s) == (1, 2.5)
    assert error.count("will be shown with the next question") == 2


def test_a_conversation_is_saved_changed_and_loaded(follow):
    saved, *_ = follow("what happens?", "who is she?", "/save talk.json")
    dialogue, out, error = follow(
        "/load talk.json", "/back", "/edit 1 where is he?", "why?", shown=False
    )
    assert "user: what happens?" in error
    assert "forgotten: who is she?" in error
    talk = dialogue.chat.conversation
    assert [turn.text for turn in talk.turns[::2]] == ["where is he?", "why?"]
    assert talk.media == saved.chat.conversation.media
    assert out.splitlines() == [turn.text for turn in talk.turns[1::2]]


def test_an_open_question_of_a_loaded_file_is_answered(follow, film):
    values = {
        "media": [{"id": "a", "source": film.name}],
        "turns": [{"role": "user", "parts": [{"medium": 0}, "what happens?"]}],
    }
    film.with_name("talk.json").write_text(json.dumps(values))
    _, out, _ = follow("/load talk.json", shown=False)
    _, asked, _ = follow("what happens?")
    assert out == asked


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/vido a.mp4", "/vido is no command; did you mean /video"),
        ("/video", "expected a path, or a path, start_s and end_s, but got 0 words"),
        ("/video my film.mp4", "write a path with spaces in quotes"),
        ("/video 'my film.mp4", "close its quotes"),
        ("/video gone.mp4", "gone.mp4 does not exist"),
        ("/video 'my film.mp4' now then", "from nan to nan s; expected seconds"),
        ("/image 'my film.mp4'", "my film.mp4"),
        ("/sound 'my film.mp4'", "no sounds are read here"),
        ("/edit 7 why?", "there is no question 7"),
        ("/edit why?", "expected the number of a question and a text"),
        ("/save talk.mp4", "expected a file that ends with .json, got talk.mp4"),
        ("/load gone.json", "gone.json cannot be read: No such file"),
        ("/load", "expected a file that ends with .json, got none"),
    ],
)
def test_a_line_that_cannot_be_followed_is_told_and_the_conversation_goes_on(follow, line, message):
    dialogue, out, error = follow("what happens?", line, "who is she?")
    assert message in error
    assert error.count("error: ") == dialogue.mistakes == 1
    assert dialogue.chat.num_questions == len(out.splitlines()) == 2


def test_what_was_not_asked_can_be_neither_saved_nor_forgotten(follow, film):
    dialogue, _, error = follow("/save talk.json", "/back")
    assert "nothing was asked yet; ask something first" in error
    assert "there is no question 0" in error
    assert not film.with_name("talk.json").exists()
    assert len(dialogue.chat.waiting) == 1


def test_help_names_every_command(follow):
    _, _, error = follow("/help")
    assert [line.split()[0] for line in error.splitlines()] == [f"/{name}" for name in COMMANDS]


def test_ctrl_c_stops_an_answer_that_is_typed_for_and_everything_else(follow, monkeypatch):
    def interrupted(self, text):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Growing, "hear", interrupted)
    dialogue, _, error = follow("what happens?", "who is she?", grows=True, typed=True)
    assert "the question is forgotten" in error
    assert [turn.text for turn in dialogue.chat.conversation.turns[::2]] == ["who is she?"]


@pytest.mark.parametrize("texts", [["a", "a dog", "a dog."], ["a do", "a dog"], ["it 's", "it's"]])
def test_what_is_printed_of_a_growing_answer_ends_with_all_of_it(capsys, texts):
    growing = Growing()
    for text in texts:
        growing.hear(text)
    growing.end(texts[-1])
    assert capsys.readouterr().out.splitlines()[-1] == texts[-1]


def test_an_answer_gives_the_terminal_no_orders(capsys):
    growing = Growing()
    growing.hear("red \x1b[2J")
    growing.end("red \x1b[2J\ud800 dog")
    assert capsys.readouterr().out == "red �[2J� dog\n"
