"""`check` with a tokenizer: lengths in tokens, and what a language model would cut."""

import json
import subprocess
import sys

import pytest

from mmavlm import check
from mmavlm.core.turns import Turn
from mmavlm.model.llm.rendering import Rendering
from mmavlm.model.text import load_tokenizer

PROMPTS = ["What does the dog do? " * n for n in (1, 2, 5)]
ANSWERS = ["It barks.", "It barks at the door. " * 3, "</s>"]


@pytest.fixture
def folder(tmp_path):
    load_tokenizer(None).save_pretrained(tmp_path / "tokenizer")
    rows = [
        {"turns": [{"role": "user", "parts": [prompt]}, {"role": "assistant", "parts": [answer]}]}
        for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
    ]
    for split in ("train", "val", "test"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text)
    return tmp_path


def arguments(folder, *more):
    return ["data=conversations", f"data.root={folder}", *more]


def test_the_turns_that_are_counted_as_cut_are_those_that_a_model_cuts(run, folder, capsys):
    limits = {"max_prompt_tokens": 20, "max_answer_tokens": 12}
    given = [f"llm.{name}={limit}" for name, limit in limits.items()]
    assert run(check, *arguments(folder, *given, "tokenizer=tokenizer", "format=json")) == 0
    notes = json.loads(capsys.readouterr().out)["splits"]["train"]["notes"]
    user, assistant = (
        next(note for note in notes if f"turn of the {role}" in note)
        for role in ("user", "assistant")
    )
    tokenizer = load_tokenizer("tokenizer")
    whole, cut = (
        Rendering(tokenizer, template="{video}{prompt}", continues=True, **most)
        for most in (dict.fromkeys(limits, 10**6), limits)
    )
    prompts = [(Turn("user", (text,)),) for text in PROMPTS]
    of_prompts = sum(whole.turns(turns).ids != cut.turns(turns).ids for turns in prompts)
    of_answers = sum(whole.answers.ids(text) != cut.answers.ids(text) for text in ANSWERS)
    assert 0 < of_prompts < 3
    assert 0 < of_answers < 3
    assert f"{of_prompts} of 3 lose their beginning (llm.max_prompt_tokens=20)" in user
    assert f"{of_answers} of 3 lose their end (llm.max_answer_tokens=12)" in assistant


def test_lines_of_subtitles_are_counted_as_they_are_shown(run, folder, capsys):
    stretches = ("00:00:00,500 --> 00:00:01,000", "00:00:09,000 --> 00:00:10,000")
    said = [f"{n}\n{stretch}\nHello\n" for n, stretch in enumerate(stretches, 1)]
    (folder / "a.srt").write_text("\n".join(said))
    media = [{"source": "a.mp4", "end_s": 5, "subtitles": "a.srt"}]
    turns = [{"role": "user", "parts": [{"medium": 0}, "Who?"]},
             {"role": "assistant", "parts": ["She."]}]  # fmt: skip
    (folder / "train.jsonl").write_text(json.dumps({"media": media, "turns": turns}))
    for choice, lines in ((None, 1), ("false", None)):
        given = [] if choice is None else [f"data.subtitles={choice}"]
        assert run(check, *arguments(folder, "tokenizer=tokenizer", "format=json", *given)) == 0
        notes = json.loads(capsys.readouterr().out)["splits"]["train"]["notes"]
        found = [note for note in notes if note.startswith("subtitles")]
        assert (len(found) == 1) == (lines == 1)
        assert all("1 to 1 (1.0 on average) lines a row" in note for note in found)


def test_a_folder_without_a_tokenizer_is_named(run, folder, capsys):
    (folder / "empty").mkdir()
    assert run(check, *arguments(folder, "tokenizer=empty")) == 1
    assert "no tokenizer could be read from 'empty'" in capsys.readouterr().err


def test_without_a_tokenizer_no_transformers_and_no_lightning_is_imported(folder):
    code = (
        "import sys; from mmavlm import check; check.main(); "
        "sys.exit(any(name in sys.modules for name in ('transformers', 'lightning')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments(folder)], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert "tokens" not in done.stdout
    assert "3 conversations" in done.stdout
