"""Any checkpoint can be decoded against another view, however it was trained."""

import io
import json

import pytest

from mmavlm import chat, evaluate, predict

CANDIDATES = "candidates=[comedy,drama,a house]"


@pytest.fixture
def checkpoint(trained):
    return f"checkpoint={trained / 'checkpoints/best.ckpt'}"


def scores(folder):
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").open()]
    return [row["ranking"] for row in rows]


def test_an_evaluation_chooses_what_answers_are_decoded_against(run, checkpoint, films, tmp_path):
    for name in ("none", "no_film", "noise"):
        settings = [f"contrast={name}", f"data.root={films}", f"hydra.run.dir={name}"]
        assert run(evaluate, checkpoint, *settings) == 0
    plain, *held = (scores(tmp_path / name) for name in ("none", "no_film", "noise"))
    assert all(other and other != plain for other in held)


def test_predict_and_a_file_of_questions_decode_alike(run, checkpoint, make_clip, capsys, tmp_path):
    make_clip("a.mp4")
    asked = {"video": "a.mp4", "prompt": "what happens?"}
    (tmp_path / "q.jsonl").write_text(json.dumps(asked))
    for contrast in ("noise", "thin"):
        common = [checkpoint, f"contrast={contrast}", CANDIDATES]
        capsys.readouterr()
        assert run(predict, *common, "format=json", *(f"{k}={v}" for k, v in asked.items())) == 0
        alone = json.loads(capsys.readouterr().out)["answers"]
        file = f"{contrast}.jsonl"
        assert run(predict, *common, "questions=q.jsonl", f"answers_to={file}") == 0
        [row] = map(json.loads, (tmp_path / file).open())
        for one, other in zip(alone, row["answers"], strict=True):
            assert one["answer"] == other["answer"]
            assert one["log_prob"] == pytest.approx(other["log_prob"], rel=1e-4)


def test_what_keeps_no_second_view_says_so(run, checkpoint, make_clip, capsys):
    make_clip("a.mp4")
    stream = ["video=a.mp4", "prompt=why?", "stream_fps=1"]
    assert run(predict, checkpoint, "contrast=no_film", *stream) == 1
    assert "a stream is not decoded against another view" in capsys.readouterr().err


def test_a_chat_is_decoded_as_its_first_question_is_by_predict(
    run, checkpoint, make_clip, capsys, monkeypatch
):
    make_clip("a.mp4")
    settings = ["video=a.mp4", "contrast=no_film", "stage.num_beams=1", "format=json"]
    assert run(predict, checkpoint, *settings, "prompt=why?", "num_answers=1") == 0
    [expected] = json.loads(capsys.readouterr().out)["answers"]
    monkeypatch.setattr("sys.stdin", io.StringIO("why?\n"))
    assert run(chat, checkpoint, *settings, "num_beams=1") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answer"] == expected["answer"]
    assert found["log_prob"] == pytest.approx(expected["log_prob"], rel=1e-4)
