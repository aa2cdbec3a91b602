import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import long_stories
from mmavlm import export, train
from mmavlm.core.interfaces import Answer
from mmavlm.metrics import Prediction
from mmavlm.movies import __main__ as movies
from support import composed

STORIES = ("kind=stories", "out=stories", "films=5", "fan_out=2,2,3")


@pytest.fixture
def stories(run, tmp_path):
    """A small set of stories with its rows, where the commands run."""
    assert run(movies, *STORIES) == 0
    long_stories.write_talks(tmp_path / "stories")
    return tmp_path / "stories"


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def questions(talk):
    """Pairs of question and answer of a conversation."""
    said = [turn["parts"][-1] for turn in talk["turns"]]
    return list(zip(said[::2], said[1::2], strict=True))


def test_every_question_is_in_one_talk_about_its_own_stretch_of_film(stories):
    rows, talks = read(stories / "train.jsonl"), read(stories / "talks/train.jsonl")

    asked = [(row["video"], row.get("start_s"), row["prompt"], row["answer"]) for row in rows]
    told = [
        (film["source"], film.get("start_s"), *pair)
        for talk in talks
        for film in talk["media"]
        for pair in questions(talk)
    ]
    assert sorted(asked, key=str) == sorted(told, key=str)
    assert all(talk["turns"][0]["parts"][0] == {"medium": 0} for talk in talks)


def test_a_test_asks_one_question_about_an_entire_film_at_a_time(stories):
    entire = [row for row in read(stories / "test.jsonl") if "end_s" not in row]
    talks = read(stories / "talks/test.jsonl")
    assert [(t["id"], t["task"]) for t in talks] == [(row["id"], row["task"]) for row in entire]
    assert {len(talk["turns"]) for talk in talks} == {2}
    assert not any("end_s" in film for talk in talks for film in talk["media"])


def test_words_are_the_talks_without_their_films(stories):
    for split in ("train", "test"):
        pairs = zip(read(stories / f"talks/{split}.jsonl"), read(stories / f"words/{split}.jsonl"),
                    strict=True)  # fmt: skip
        for shown, words in pairs:
            assert questions(shown) == questions(words)
            assert "media" not in words
            assert all(isinstance(part, str) for turn in words["turns"] for part in turn["parts"])


def answered(film, number, right, task="who"):
    given = Answer("yes" if right else "no", 0.0)
    return Prediction(f"{film}/{number}", film, task, "?", "yes", [given], [], ["yes"])


def test_intervals_take_films_as_what_is_drawn():
    mixed = [answered(f"f{n}", k, n % 2 == 0) for n in range(20) for k in range(10)]
    one_each = [row for row in mixed if row.item_id.endswith("/0")]
    of_all, of_one = (long_stories.right_answers(rows)["all"] for rows in (mixed, one_each))
    assert of_all == of_one  # nine more answers of the same film say nothing more
    assert of_all.low < of_all.value == 50 < of_all.high
    none = long_stories.right_answers([answered(f"f{n}", 0, False) for n in range(20)])["who"]
    assert none.value == none.low == 0
    assert none.high == pytest.approx(16.1, abs=0.1)  # Wilson's, of 0 of 20


def test_the_arms_start_with_the_language_model_that_is_trained_for_them():
    start, arm = (composed(f"experiment={name}") for name in ("long_stories_start", "long_stories"))
    size = ("width", "layers", "heads", "seed")
    assert [start.llm[key] for key in size] == [arm.llm[key] for key in size]
    assert start.optimizer == arm.optimizer


BRIEF = ["data.root=stories", "data.cache=null", "data.num_frames=12", "trainer.max_epochs=1",
         "trainer.check_val_every_n_epoch=1", "trainer.accelerator=cpu",
         "callbacks.progress=null"]  # fmt: skip


@pytest.mark.slow
def test_runs_become_a_table_and_a_plot(run, stories, monkeypatch, capsys, tmp_path):
    from safetensors.torch import load_file, save_file

    start = ["experiment=long_stories_start", "data.root=stories", "data.cache=null",
             "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "callbacks.progress=null",
             "hydra.run.dir=start"]  # fmt: skip
    assert run(train, *start) == 0
    assert run(export, "checkpoint=start/checkpoints/last.ckpt", "to=start/model") == 0
    weights = load_file("start/model/model.safetensors")
    llm = {name: tensor for name, tensor in weights.items() if name.startswith("llm.")}
    save_file(llm, "llm.safetensors")
    arm = ["experiment=long_stories", *BRIEF, "init.weights=llm.safetensors"]
    two = ["temporal=context_content", "vision.norm_eps=null", "vision.position_init=none"]
    assert run(train, *arm, "data.reader.folder=words", "hydra.run.dir=words") == 0
    assert run(train, *arm, *two, "hydra.run.dir=two") == 0
    bounded = ["temporal.memory=${memory}", "memory.length=4"]
    assert run(train, *arm, *two, *bounded, "hydra.run.dir=bounded") == 0
    capsys.readouterr()
    command = ["long_stories", "table", "words", "two", "bounded", "--rounds", "1",
               "--plot", "tokens.svg", "--json"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    long_stories.main()
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found["questions"] == len(read(stories / "talks/test.jsonl"))
    tokens = {name: cost["tokens"] for name, cost in found["cost"].items()}
    assert tokens == {"words": 0, "two": 2 * 12, "bounded": 2 * 5}
    assert all(cost["step_s"] > 0 and cost["peak_mib"] > 0 for cost in found["cost"].values())
    categories = set(long_stories.CATEGORIES)
    assert all(set(right) <= categories | {"all"} for right in found["right"].values())
    assert set(found["differences"]) == {"two", "bounded"}
    drawn = (tmp_path / "tokens.svg").read_text()
    assert all(text in drawn for text in ("words", "bounded", "video tokens a question"))
    assert all(f">{number}<" in drawn for number in (0, 10, 24))  # the ticks are the runs' tokens
    assert "math" not in drawn
