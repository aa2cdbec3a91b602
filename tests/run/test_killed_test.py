"""Tests that are killed anywhere and go on: they leave what one that ran through leaves."""

import json
import re
from functools import partial
from random import Random

import pytest

from benchmark_sets import write_benchmarks
from mmavlm import evaluate
from mmavlm.stages import FineTune

MODEL = ["model=tiny", "trainer=cpu", "init.allow_random=true", "data.num_workers=0",
         "callbacks.progress=null", "data.eval_batch_size=2", "stage.max_new_tokens=4",
         "stage.num_beams=2", "stage.num_answers=2"]  # fmt: skip
OWN = ["experiment=own_videos", "data.num_frames=4"]
STOP = "+callbacks.stop._target_=support.StopTestAtBatch"
QUIET = "callbacks.explanations=null"


@pytest.fixture
def asked(monkeypatch):
    """The items that a stage was asked for, in turn."""
    items, answer = [], FineTune.answer

    def noted(stage, batch, by="both"):
        items.extend(batch.item_id)
        return answer(stage, batch, by)

    monkeypatch.setattr(FineTune, "answer", noted)
    return items


@pytest.fixture(scope="module")
def roots(films, tmp_path_factory):
    """Where the sets lie, by name."""
    videos = sorted((films / "lvu/videos").glob("*.mp4"))
    own = tmp_path_factory.mktemp("own")
    (own / "videos").symlink_to(videos[0].parent)
    asked = [(film, what) for film in videos for what in ("what is seen?", "who is there?")]
    for split, rows in (("train", asked[:2]), ("val", asked[2:6]), ("test", asked[6:])):
        lines = [
            json.dumps({"video": f"videos/{film.name}", "prompt": what, "answer": film.stem[-1]})
            for film, what in rows
        ]
        (own / f"{split}.jsonl").write_text("\n".join(lines))
    pope = write_benchmarks(tmp_path_factory.mktemp("benchmarks"), videos)["pope"]
    return {"own": own, "films": films, "pope": pope}


KINDS = {
    "of one set": ("own", OWN),
    "of a mix": ("films", ["experiment=mix", "data.num_frames=4"]),
    "of a benchmark": ("pope", ["experiment=eval_pope", "data.num_frames=4"]),
    "beside which habit is asked for": ("own", [*OWN, "callbacks=habit"]),
    "answered by several decodings": ("own", [*OWN, "callbacks=decodings"]),
}

LONG = ("beside which habit is asked for", "answered by several decodings")


@pytest.fixture
def test_once(run, roots):
    """A function that tests a random model in a folder, and may be stopped at a batch."""

    def test(folder, *arguments, stop=None, root="own"):
        stops = [] if stop is None else [STOP, f"+callbacks.stop.batch={stop}"]
        given = [*MODEL, *(arguments or OWN)]
        return run(evaluate, *given, f"data.root={roots[root]}",
                   f"hydra.run.dir={folder}", *stops)  # fmt: skip

    return test


def left(folder):
    """What a test left: its answers, its numbers, and the pictures of its report."""
    page = (folder / "report.html").read_text()
    decodings = sorted((folder / "decodings").glob("*.jsonl"))
    return (
        (folder / "predictions.jsonl").read_bytes(),
        (folder / "metrics.json").read_bytes(),
        [path.read_bytes() for path in decodings],
        re.findall(r"data:image/[^\"']+", page),
    )


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in LONG else ()) for kind in KINDS]
)
def test_a_test_that_is_killed_twice_leaves_what_an_undisturbed_one_leaves(
    test_once, tmp_path, kind
):
    root, arguments = KINDS[kind]
    test_once = partial(test_once, root=root)
    assert test_once("whole", *arguments) == 0
    batches = -(-len((tmp_path / "whole/predictions.jsonl").read_text().splitlines()) // 2)
    first, second = sorted(Random(kind).sample(range(batches), 2))
    assert test_once("killed", *arguments, stop=first) == 1
    assert test_once("killed", *arguments, stop=second) == 1
    assert (tmp_path / "killed/answers").is_dir()
    assert test_once("killed", *arguments) == 0
    assert left(tmp_path / "killed") == left(tmp_path / "whole")
    assert not (tmp_path / "killed/answers").exists()


def answers(folder):
    return folder / "killed/answers/0_of_1.jsonl"


def test_what_was_answered_is_not_asked_again_but_for_what_the_report_shows(
    test_once, tmp_path, asked, capsys
):
    assert test_once("killed", *OWN, QUIET, stop=6) == 1
    known = [json.loads(line) for line in answers(tmp_path).read_text().splitlines()[1:]]
    shown = {item for row in known if row.get("again") for item in row["items"]}
    answered = {row["item_id"] for row in known if "item_id" in row}
    assert len(answered) == 12
    assert shown < answered
    asked.clear()
    assert test_once("killed", *OWN, QUIET) == 0
    assert not (answered - shown) & set(asked)
    assert shown <= set(asked)
    assert f"goes on behind {12 - len(shown)} answers" in capsys.readouterr().err


def test_a_batch_that_is_torn_is_left_out_and_told(test_once, tmp_path, capsys):
    assert test_once("whole") == 0
    assert test_once("killed", *OWN, stop=4) == 1
    content = answers(tmp_path).read_bytes()
    answers(tmp_path).write_bytes(content[:-7])
    assert test_once("killed") == 0
    assert "ends within a batch" in capsys.readouterr().err
    assert left(tmp_path / "killed") == left(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changed", "told", "items"),
    [
        (["stage.num_beams=3"], "stage.num_beams", 18),
        (["data.limit_items=8"], "data.limit_items, items", 8),
        (["seed=7"], "weights", 18),
        (["logger=csv", "data.decode_threads=2"], "", 14),
    ],
)
def test_answers_are_taken_unless_settings_differ_that_they_follow(
    test_once, asked, capsys, changed, told, items
):
    assert test_once("killed", *OWN, QUIET, stop=6) == 1
    asked.clear()
    capsys.readouterr()
    assert test_once("killed", *OWN, QUIET, *changed) == 0
    refused = [m for m in capsys.readouterr().err.split("\n") if "are not taken, since" in m]
    assert bool(refused) == bool(told)
    if refused:
        differing = refused[0].rpartition("differ: ")[2].split(", ")
        assert set(told.split(", ")) <= set(differing)
    assert len(set(asked)) == items
