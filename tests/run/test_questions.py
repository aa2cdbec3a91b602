"""A file of questions is answered row by row, each film decoded and encoded once."""

import json

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from mmavlm import predict
from mmavlm.data.dataset import VideoDataset
from mmavlm.model.branches import Branch
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.model.text import load_tokenizer
from mmavlm.run import questions
from mmavlm.run.ask import Ready
from support import asking, composed, random_batch, tiny_backbone

ASK = ["experiment=zero_shot_own_videos", "model=tiny", "init.allow_random=true",
       "data.num_frames=4", "data.batch_size=2", "stage.num_beams=2", "num_answers=2",
       "stage.min_new_tokens=2", "stage.max_new_tokens=3"]  # fmt: skip
PROMPTS = ["what happens?", "who is she?", "why does the man sit in the prison?"]


@pytest.fixture
def ask(run, make_clip, tmp_path):
    """Ask rows of questions about films a.mp4 and b.mp4; gives the rows of answers."""
    make_clip("a.mp4")
    make_clip("b.mp4", frames=3)

    def ask(rows, *settings, code=0):
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        (tmp_path / "q.jsonl").write_text("\n".join(lines))
        torch.manual_seed(0)  # of the weights, which are random
        assert run(predict, *ASK, "questions=q.jsonl", *settings) == code
        path = tmp_path / "q_answers.jsonl"
        return [json.loads(line) for line in path.open()] if path.exists() else []

    return ask


def about(video, prompts=PROMPTS, **rest):
    return [{"video": video, "prompt": prompt} | rest for prompt in prompts]


def same(found, expected):
    assert [answer["answer"] for answer in found] == [answer["answer"] for answer in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["log_prob"] == pytest.approx(other["log_prob"], rel=1e-4)
        assert one["probability"] == pytest.approx(other["probability"], rel=1e-3)


def test_each_question_is_answered_as_if_it_were_asked_alone(ask, run, capsys):
    rows = ask([*about("a.mp4"), *about("b.mp4")])
    assert [(row["video"], row["prompt"]) for row in rows] == [
        (video, prompt) for video in ("a.mp4", "b.mp4") for prompt in PROMPTS
    ]
    for row in (rows[0], rows[-1]):
        capsys.readouterr()
        torch.manual_seed(0)
        alone = [*ASK, f"video={row['video']}", f"prompt={row['prompt']}", "format=json"]
        assert run(predict, *alone) == 0
        same(row["answers"], json.loads(capsys.readouterr().out)["answers"])


def test_a_film_asked_several_questions_is_decoded_and_encoded_once(ask, monkeypatch):
    decoded, encoded = [], []
    read, encode = VideoDataset.__getitem__, Branch.encode
    monkeypatch.setattr(
        VideoDataset, "__getitem__", lambda self, at: decoded.append(at) or read(self, at)
    )
    monkeypatch.setattr(
        Branch, "encode", lambda self, frames: encoded.append(len(frames)) or encode(self, frames)
    )
    rows = ask([*about("a.mp4"), *about("b.mp4"), *about("b.mp4", start_s=0.1)])
    assert len(rows) == 9
    assert len(decoded) == sum(encoded) == 3, "two films, and a stretch of one"


def test_films_are_seen_at_the_rate_that_is_set(ask, run, monkeypatch):
    seen, encode = [], Branch.encode
    monkeypatch.setattr(
        Branch, "encode", lambda self, frames: seen.append(frames.shape[1]) or encode(self, frames)
    )
    ask(about("a.mp4", PROMPTS[:1]), "data.sample_fps=1")
    alone = ["video=a.mp4", f"prompt={PROMPTS[0]}", "format=json"]
    assert run(predict, *ASK, *alone, "data.sample_fps=0.5") == 0
    assert run(predict, *ASK, *alone) == 0
    assert seen == [3, 1, 4]


def test_options_and_candidates_are_ranked_and_the_rest_generated(ask):
    options = {"options": ["a dog", "a cat", "a bird"]}
    rows = ask([*about("a.mp4", PROMPTS[:1], **options), *about("a.mp4", PROMPTS[1:2])])
    assert {answer["answer"] for answer in rows[0]["answers"]} == {"A", "B", "C"}
    assert sum(answer["probability"] for answer in rows[0]["answers"]) == pytest.approx(1)
    assert len(rows[1]["answers"]) == 2
    chosen = ask(about("a.mp4"), "candidates=[comedy,action]", "answers_to=other.jsonl")
    assert chosen == rows, "which lie in a file of their own"


def test_a_second_start_asks_only_what_has_no_answer_and_mends_what_broke(
    ask, tmp_path, make_clip, monkeypatch, capsys
):
    (tmp_path / "c.mp4").write_bytes(b"no film")
    rows = [*about("a.mp4"), *about("c.mp4", PROMPTS[:2]), *about("gone.mp4", PROMPTS[:1])]
    found = ask(rows)
    assert ["answers" in row for row in found] == [True] * 3 + [False] * 3
    assert "c.mp4" in found[3]["error"]
    assert "gone.mp4" in found[5]["error"]
    said = capsys.readouterr()
    assert "3 questions are answered in q_answers.jsonl; 3 could not be" in said.out
    make_clip("c.mp4")
    path = tmp_path / "q_answers.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:1], *lines[2:], '{"item_id": "torn']))  # one is not there yet
    asked = []
    read = questions.read_group
    monkeypatch.setattr(
        questions, "read_group", lambda group, *rest: asked.extend(group) or read(group, *rest)
    )
    again = ask(rows)
    assert [item.item_id for item in asked] == [found[n]["item_id"] for n in (1, 3, 4, 5)]
    assert sorted(row["item_id"] for row in again) == sorted(row["item_id"] for row in found)
    assert [row["item_id"] for row in again if "error" in row] == [found[5]["item_id"]]
    kept = {row["item_id"]: row for row in again}
    assert kept[found[0]["item_id"]] == found[0]
    same(kept[found[1]["item_id"]]["answers"], found[1]["answers"])


def test_answers_of_other_settings_or_questions_are_neither_mixed_nor_lost(ask, tmp_path, capsys):
    found = ask(about("a.mp4"))
    before = (tmp_path / "q_answers.jsonl").read_bytes()
    for rows, setting, message in [
        (about("a.mp4"), "data.sample_fps=1", "answers of another model or other settings"),
        (about("a.mp4"), "stage.num_beams=3", "answers of another model or other settings"),
        (about("a.mp4", PROMPTS[::-1]), "format=json", "line 1 answers another question under"),
    ]:
        assert ask(rows, setting, code=1) == found
        assert message in capsys.readouterr().err
    (tmp_path / "notes.jsonl").write_text("a note\n")
    ask(about("a.mp4"), "answers_to=notes.jsonl", code=1)
    assert "line 1 is no row of answers; give another file" in capsys.readouterr().err
    assert (tmp_path / "notes.jsonl").read_text() == "a note\n"
    assert (tmp_path / "q_answers.jsonl").read_bytes() == before


def test_a_question_too_long_for_the_model_is_an_error_of_its_row_alone():
    backbone, tokenizer = tiny_backbone().eval(), load_tokenizer(None)
    short = GPT2Config(vocab_size=len(tokenizer), n_embd=64, n_layer=1, n_head=2, n_positions=40)
    backbone.llm = PromptedLanguageModel(GPT2LMHeadModel(short), tokenizer)
    model = Ready(backbone, backbone.llm, torch.device("cpu"), 3)
    batch = asking(random_batch(), prompt=["what " * 30, "what happens?"])
    config = composed(*ASK, name="predict")
    first, second = questions.answers_to(config, model, batch)
    assert "40 positions" in first["error"]
    assert len(second["answers"]) == 2
