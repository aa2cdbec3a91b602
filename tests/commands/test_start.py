"""How soon a command speaks: what it has imported by then."""

import importlib
import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "lightning", "transformers", "torchmetrics", "torchvision", "timm", "matplotlib",
         "scipy", "sympy", "huggingface_hub"}  # fmt: skip
# Runs command lines one after another in a fresh process; tells codes, outputs, and what is heavy.
RUNNER = """
import contextlib, importlib, io, json, sys
told = []
for verb, *arguments in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = [verb, *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            importlib.import_module("mmavlm." + verb).main()
        except SystemExit as stop:
            code = stop.code or 0
    told.append([code, out.getvalue(), err.getvalue()])
print(json.dumps({"told": told, "modules": sorted(m for m in sys.modules if "." not in m)}))
"""


def run_fresh(folder, *lines):
    """What each command line gives in one fresh process, and the packages imported by its end."""
    process = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps([list(map(str, line)) for line in lines])],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(process.stdout)
    return found["told"], set(found["modules"])


def test_help_and_versions_of_all_commands_need_nothing_heavy(tmp_path):
    verbs = ("train", "evaluate", "predict", "chat", "check", "cache", "pack", "export", "pope",
             "movies.__main__", "demo", "doctor", "prepare", "extract_frames", "convert",
             "new", "completion")  # fmt: skip
    told, modules = run_fresh(
        tmp_path, *([verb, "--help"] for verb in verbs), ["evaluate", "--version"],
        ["evaluate", "--cfg", "job"],
    )  # fmt: skip
    assert [code for code, _, _ in told] == [0] * len(told)
    assert not HEAVY & modules
    for verb, (_, out, _) in zip(verbs, told, strict=False):
        assert f"mmavlm {verb.partition('.')[0].replace('_', '-')} " in out
    assert told[-2][1].startswith("mmavlm 0.")
    assert "qformer_queries: 32" in told[-1][1]


ASK = ["experiment=zero_shot_own_videos"]
MISTAKES = [
    (["train", "experiment=lvu_genre", "data.batchsize=2"], "did you mean data.batch_size=2?"),
    (["train", "experiment=lvu_gen"], "lvu_genre"),
    (["train", "experiment=lvu_genre"], "data.root is not set"),
    (["train", "experiment=lvu_genre", "data.root=/nowhere"], "data.root=/nowhere does not exist"),
    (["train", "experiment=lvu_genre", "data.root=.", "data.num_frames=200"], "has 120 rows"),
    (["train", "experiment=demo", "data.num_frames=0"], "data.num_frames must be at least 1, got"),
    (["train", "experiment=demo", "data.sample_fps=-1"], "data.sample_fps must be above 0, got -1"),
    (["train", "experiment=demo", "hydra.run.dir=file/x"], "file is a file; give a folder"),
    (["train", "-m", "experiment=demo", "hydra.sweep.dir=file"], "file is a file; give a folder"),
    (["predict", *ASK, "video=file", "prompt=b", "data.num_frames=many"], "a whole number, got 'm"),
    (["predict", *ASK, "video=file", "prompt=b", "stage.num_beams=0"], "stage.num_beams must be"),
    (["predict", *ASK, "video=file", "prompt=b", "candidates=[]"], "candidates=[] has no text"),
    (["predict", *ASK, "video=file", "prompt=b", "candidates=[a,a]"], "'a' more than once"),
    (["predict", *ASK, "video=file", "prompt=b", "stream_fps=1e9"], "stream_fps must be at most"),
    (["movies.__main__", "out=file/films"], "file is a file; give a folder"),
    (["demo", "quik=true"], "there is no setting quik; did you mean quick?"),
    (["train", "experiment=lvu_genre", "data.root=.", "resume=gone.ckpt"], "gone.ckpt does not"),
    (["train", "data.root=.", "init.alignment=gone.ckpt"], "gone.ckpt does not exist"),
    (["train", "data.root=.", "init.weights=gone.safetensors"], "gone.safetensors do not exist"),
    (["train", "data.root=.", "init.experiment=dem"], "demo"),
    (["evaluate"], "no checkpoint is given"),
    (["evaluate", "chekpoint=a.ckpt"], "did you mean checkpoint=a.ckpt?"),
    (["evaluate", "checkpoint=gone.ckpt"], "gone.ckpt does not exist"),
    (["evaluate", "predictions=gone"], "gone does not exist"),
    (["predict", "checkpoint=gone.ckpt", "video=a", "prompt=b"], "gone.ckpt does not exist"),
    (["predict", *ASK, "questions=gone.jsonl"], "questions gone.jsonl do not exist"),
    (["predict", *ASK, "questions=a", "video=b"], "questions= asks a file of questions; leave"),
    (["chat"], "no checkpoint is given"),
    (["chat", *ASK, "video=gone.mp4"], "video gone.mp4 does not exist"),
    (["chat", *ASK, "num_beams=0"], "num_beams must be at least 1, got 0"),
    (["chat", *ASK, "vido=a.mp4"], "did you mean video=a.mp4?"),
    (["export", "to=model"], "there is nothing to export"),
    (["cache", "data.root=/nowhere"], "data.root=/nowhere does not exist"),
    (["pack", "data=lvu", "data.root=.", "ot=/shards"], "did you mean out=/shards?"),
    (["pack", "data=lvu", "data.root=/nowhere", "out=x"], "data.root=/nowhere does not exist"),
    (["check", "data=lvu", "data.root=s3://bucket"], "which data=shards alone reads"),
    (["check", "data=lvu", "data.root=/nowhere"], "data.root=/nowhere does not exist"),
    (["check", "data=lvu", "data.rot=/nowhere"], "did you mean data.root=/nowhere?"),
    (["pope", "data.root=/nowhere"], "data.root=/nowhere does not exist"),
    (["movies.__main__", "out=films", "clps=3"], "did you mean clips?"),
    (["prepare", "lvu", "rot=/data"], "did you mean root?"),
    (["prepare", "lvu"], "root is not set; give it on the command line: root=…"),
    (["prepare", "lvu", "root=/nowhere"], "root=/nowhere is no folder"),
    (["extract_frames", "videos=/nowhere", "frames=f"], "videos=/nowhere is no folder"),
    (["convert", "gone.pth"], "<target> is not given"),
    (["convert", "a.pth", "b.safetensors", "fps=2"], "fps is of pickles, and weights are given"),
    (["convert", "a.pkl", "b", "partial=true"], "partial is of weights, and pickles are given"),
    (["convert", "a.pkl", "b.pth", "c"], "b.pth is no .pkl file as the others are"),
    (["convert", "a.pth", "b.pth", "c.bin"], "several sources of weights; convert one at a time"),
    (["demo", "threads=none"], "threads=none cannot be read; threads is a whole number"),
    (["demo", "experiment=lvu_genre"], "the demo is an experiment itself"),
    (["demo", "trainer.max_epoch=1"], "did you mean trainer.max_epochs=1?"),
    (["doctor", "format=yaml"], "format=yaml is no choice of format; choose table, json"),
    (["doctor", "timeout_s=0"], "timeout_s must be above 0, got 0"),
]


def test_what_a_config_shows_to_be_wrong_is_told_before_torch_is_there(tmp_path):
    (tmp_path / "file").touch()
    told, modules = run_fresh(tmp_path, *(line for line, _ in MISTAKES))
    for (line, message), (code, _, error) in zip(MISTAKES, told, strict=True):
        assert code == 1, line
        assert message in error, line
        assert "Traceback" not in error, line
    assert not HEAVY & modules


def test_the_folder_that_is_not_written_to_may_be_anything(tmp_path):
    (tmp_path / "outputs").touch()
    line = ["train", "experiment=lvu_genre", "data.root=/nowhere", "hydra.run.dir=mine"]
    ((code, _, error),), _ = run_fresh(tmp_path, line)
    assert (code, "data.root=/nowhere does not exist" in error) == (1, True), error


def test_a_folder_that_is_gone_meanwhile_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    lines = (["train", "experiment=demo"], ["chat", *ASK], ["doctor"], ["movies.__main__", "out=x"])
    for verb, *arguments in lines:
        monkeypatch.setattr(sys, "argv", [verb, *arguments])
        with pytest.raises(SystemExit, match="1"):
            importlib.import_module(f"mmavlm.{verb}").main()
        assert "the folder this was started in is gone" in capsys.readouterr().err, verb


def test_ctrl_c_ends_a_command_in_one_word(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmavlm.predict.predict", interrupted)
    monkeypatch.setattr("mmavlm.commands.plain._run", interrupted)
    for verb, arguments in (("predict", ASK), ("doctor", [])):
        monkeypatch.setattr(sys, "argv", [verb, *arguments])
        with pytest.raises(SystemExit, match="130"):
            importlib.import_module(f"mmavlm.{verb}").main()
        assert capsys.readouterr().err.strip().splitlines()[-1] == "interrupted"


def test_check_says_what_it_does_and_needs_neither_torch_nor_lightning(films, tmp_path):
    arguments = ["check", "data=lvu", "data.task=genre", f"data.root={films}"]
    others = [["check", f"data={name}", f"data.root={films}"] for name in ("msvd_qa", "own_videos")]
    told, modules = run_fresh(tmp_path, arguments, [*arguments, "format=json"], *others)
    assert [code for code, _, _ in told] == [0] * len(told)
    assert told[0][2].startswith("check: data lvu, reading annotations …")
    assert json.loads(told[1][1])["splits"]["train"]["items"] > 0, "and no word of it in the JSON"
    assert not HEAVY & modules


@pytest.mark.slow
def test_runs_are_compared_and_scored_with_torch_alone(trained, tmp_path):
    told, modules = run_fresh(
        tmp_path,
        ["evaluate", f"compare=[{trained},{trained}]", "hydra.run.dir=compared"],
        ["evaluate", f"predictions={trained}", "hydra.run.dir=scored"],
    )
    assert [code for code, _, _ in told] == [0, 0]
    assert HEAVY & modules == {"torch"}
