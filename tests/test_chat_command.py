"""`python -m mmavlm.chat` as a user types it, with what is said at a terminal and in a pipe."""

import io
import json
import sys

import pytest

from mmavlm import chat, predict

ASK = ["experiment=zero_shot_own_videos", "model=tiny", "init.allow_random=true",
       "data.num_frames=4", "stage.min_new_tokens=2", "stage.max_new_tokens=2"]  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def talk(run, make_clip, monkeypatch):
    """Start the command on a film, with lines as its input; gives its exit code."""
    film = make_clip()

    def talk(lines, *settings, terminal=False):
        given = (Terminal if terminal else io.StringIO)("\n".join(lines) + "\n")
        monkeypatch.setattr(sys, "stdin", given)
        return run(chat, *ASK, f"video={film}", *settings)

    return talk


def test_questions_of_a_pipe_are_answered_as_lines_of_json(talk, capsys):
    assert talk(["what happens?", "who is she?"], "format=json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["question"] for row in rows] == ["what happens?", "who is she?"]
    assert all(row.keys() == {"question", "answer", "log_prob"} for row in rows)


def test_a_line_of_a_pipe_that_cannot_be_followed_is_told_at_the_end_too(talk, capsys):
    assert talk(["/vide a.mp4", "what happens?"], "num_beams=2") == 1
    printed = capsys.readouterr()
    assert "/vide is no command; did you mean /video" in printed.err
    assert "error: 1 of the lines could not be followed" in printed.err
    assert printed.out.strip()


def test_a_terminal_numbers_the_questions_and_the_end_of_input_ends(talk, capsys):
    assert talk(["what happens?", "/back", "why?"], terminal=True) == 0
    out = capsys.readouterr().out
    assert [out.count(f"{n}> ") for n in (1, 2, 3)] == [2, 2, 0]


def test_a_model_of_stage_one_answers_nothing_and_says_so(run, make_clip, capsys):
    settings = ["experiment=webvid_alignment", "model=tiny", "init.allow_random=true"]
    assert run(chat, *settings, f"video={make_clip()}") == 1
    assert "is of stage 1, which has no LLM; give one of stage 2" in capsys.readouterr().err


def test_what_is_shown_first_must_be_usable(run, tmp_path, capsys):
    (tmp_path / "empty.mp4").touch()
    assert run(chat, *ASK, f"video={tmp_path}/empty.mp4") == 1
    assert "is empty" in capsys.readouterr().err


def test_a_checkpoint_answers_a_first_question_as_predict_does(
    run, trained, films, monkeypatch, capsys
):
    checkpoint = f"checkpoint={trained / 'checkpoints/best.ckpt'}"
    film = f"video={next((films / 'lvu/videos').glob('*.mp4'))}"
    prompt = "what is the genre of the movie?"
    monkeypatch.setattr(sys, "stdin", io.StringIO(prompt))
    assert run(chat, checkpoint, film, "format=json") == 0
    answer = json.loads(capsys.readouterr().out)
    one = ["num_answers=1", "stage.num_beams=1", "stage.num_answers=1"]
    assert run(predict, checkpoint, film, f"prompt={prompt}", "format=json", *one) == 0
    expected = json.loads(capsys.readouterr().out)["answers"][0]
    assert answer["answer"] == expected["answer"]
    assert answer["log_prob"] == pytest.approx(expected["log_prob"], rel=1e-4)
