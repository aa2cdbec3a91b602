"""The commands as a user types them, in one process, on a few synthetic films."""

import atexit
import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file

from mmavlm import check, evaluate, predict, train
from mmavlm.data.extraction import Extraction, extract
from mmavlm.metrics import left_out
from mmavlm.run.sweep import finish
from support import SMALL

EXPERIMENTS = sorted(
    path.stem
    for path in (Path(__file__).parents[2] / "conf/experiment").glob("*.yaml")
    # those train nothing: test_benchmark_commands.py, test_zero_shot.py; those need sets of their
    # own: test_video_llama_recipes.py, test_llama_vid_recipes.py, test_sound_recipes.py,
    # test_long_stories.py, test_duet.py, test_duet_recipes.py
    if not path.stem.startswith(
        ("eval_", "zero_shot_", "video_llama_", "llama_vid_", "demo_sound", "long_stories", "duet_")
    )
)
# What a user of a set looks for at the end of a run.
TOLD = {
    "demo": "test/hallucination",
    "breakfast": "test/breakfast/rank_top1",
    "coin": "test/coin/rank_top1",
    "msvd_qa": "test/qa/top1",
    "msrvtt_qa": "test/qa/top1",
    "activitynet_qa": "test/qa/top1",
    "mix": "test/msvd_qa/qa/top1",
    "msvd_caption": "test/caption/cider",
    "msrvtt_caption": "test/caption/cider",
    "youcook2_caption": "test/caption/cider",
}


def with_captions(experiment):
    """The experiment, skipped if it is of captions and there is nothing to score them by."""
    lacking = experiment.endswith("_caption") and left_out()
    return pytest.param(experiment, marks=pytest.mark.skipif(bool(lacking), reason=str(lacking)))


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [with_captions(name) for name in EXPERIMENTS])
def test_every_experiment_runs_to_its_end(run, films, tmp_path, experiment):
    code = run(train, f"experiment={experiment}", *SMALL, f"data.root={films}", "prepare=null",
               f"hydra.run.dir={tmp_path}/run")  # fmt: skip
    assert code == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert any(name.startswith("test/") for name in metrics)
    assert TOLD.get(experiment) in {None, *metrics}
    if experiment.endswith("_caption"):
        scores = ("cider", "meteor", "bleu4", "rouge_l", "cider_plain")
        assert {f"test/caption/{score}" for score in scores} <= set(metrics)
        assert 0 <= metrics["val/caption/meteor_low"] <= metrics["val/caption/meteor_high"] <= 1
        rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").open()]
        assert len({row["item_id"] for row in rows}) == len(rows)
        per_item = 1 if experiment.startswith("youcook2") else 2
        assert {len(row["references"]) for row in rows} == {per_item}
    assert (tmp_path / "run/report.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize("experiment", [name for name in TOLD if name not in ("demo", "mix")])
def test_check_counts_a_public_set(run, films, capsys, experiment):
    assert run(check, f"data={experiment}", f"data.root={films}", "format=json") == 0
    splits = json.loads(capsys.readouterr().out)["splits"]
    captions = 2 if experiment.endswith("caption") else 1
    for split in splits.values():
        assert split["items"] == captions * split["videos"] > 0
        assert (split["missing_videos"], split["skipped_entries"], split["problem"]) == (0, 0, None)


def test_check_tells_each_set_of_a_mix_and_its_share(run, films, capsys):
    arguments = ["experiment=mix", f"data.root={films}"]
    assert run(check, *arguments, "format=json") == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["sets"]) == list(told["drawn"]) == ["lvu", "breakfast", "msvd_qa"]
    assert all(s["splits"]["train"]["items"] > 0 for s in told["sets"].values())
    assert len(set(told["drawn"].values())) == 1
    assert run(check, *arguments, "+data.weights.coin=1") == 1
    assert "data.weights names ['breakfast', 'coin'" in capsys.readouterr().err
    assert run(check, *arguments, "data.weights.lvu=0") == 1
    assert "data.weights.lvu must be above 0, got 0" in capsys.readouterr().err
    assert run(check, *arguments) == 0
    assert "items of msvd_qa, 33.3% of all" in capsys.readouterr().out


def test_a_run_leaves_config_metrics_predictions_log_and_report(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "metrics.json", "predictions.jsonl", "report.html", "csv"} <= names
    assert [name for name in names if name.endswith(".log")] == ["train.log"]
    metrics = json.loads((trained / "metrics.json").read_text())
    for name in ("top1", "top1_low", "top1_high", "top5", "video_top1", "rank_top1"):
        assert f"test/genre/{name}" in metrics
    rows = [json.loads(line) for line in (trained / "predictions.jsonl").open()]
    assert len(rows) == metrics["test/genre/count"]
    assert all(row["answers"] and row["ranking"] for row in rows)


def test_a_checkpoint_holds_trainable_weights_and_its_run_and_nothing_frozen(trained):
    checkpoint = torch.load(trained / "checkpoints/last.ckpt", weights_only=True)
    assert not any("encoder.patches" in name for name in checkpoint["state_dict"])
    assert checkpoint["mmavlm"]["config"]["data"]["task"] == "genre"
    assert "model=tiny" in checkpoint["mmavlm"]["overrides"]


def test_evaluating_a_checkpoint_gives_the_numbers_of_its_run(run, trained, tmp_path):
    checkpoint = trained / "checkpoints/best.ckpt"
    assert run(evaluate, f"checkpoint={checkpoint}", "hydra.run.dir=again") == 0
    assert (tmp_path / "again/evaluate.log").is_file()
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    before = json.loads((trained / "metrics.json").read_text())
    tested = {name: value for name, value in before.items() if name.startswith("test/")}
    assert {name: again[name] for name in tested} == pytest.approx(tested, abs=1e-5)


def test_evaluating_prints_the_scores_and_last_where_the_report_lies(run, trained, capsys):
    assert run(evaluate, f"checkpoint={trained / 'checkpoints/best.ckpt'}", "hydra.run.dir=a") == 0
    said = capsys.readouterr()
    metrics = json.loads((Path("a") / "metrics.json").read_text())
    (row,) = [line for line in said.out.splitlines() if line.split()[:1] == ["genre/top1"]]
    assert "right answers" in row
    assert f"{100 * metrics['test/genre/top1']:.1f} %" in row
    low, high = (100 * metrics[f"test/genre/top1_{end}"] for end in ("low", "high"))
    assert f"{low:.1f} to {high:.1f}" in row
    assert row.split()[-3] == f"{metrics['test/genre/count']:.0f}"
    last = said.err.splitlines()[-1]
    assert last == f"report: {Path('a').resolve() / 'report.html'}"


def test_the_scores_of_an_evaluation_can_be_one_line_of_json(run, trained, capsys):
    checkpoint = f"checkpoint={trained / 'checkpoints/best.ckpt'}"
    assert run(evaluate, checkpoint, "hydra.run.dir=a", "format=json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == json.loads((Path("a") / "metrics.json").read_text())
    assert run(evaluate, checkpoint, "format=yaml") == 1
    assert "format='yaml' is unknown" in capsys.readouterr().err


def test_a_report_says_how_its_run_was_made_and_keeps_secrets(run, trained):
    checkpoint = f"checkpoint={trained / 'checkpoints/best.ckpt'}"
    assert run(evaluate, checkpoint, "hydra.run.dir=a", "+note='https://me:verysecret@host'",
               "+api_key=alsosecret") == 0  # fmt: skip
    page = (Path("a") / "report.html").read_text()
    assert "secret" not in page
    assert "api_key=***" in page.replace("&#39;", "")
    assert "mmavlm.evaluate" in page or "-m mmavlm." in page
    for name in ("written", "took", "command", "seed", "mmavlm"):
        assert f"<dt><bdi>{name}</bdi></dt>" in page


def test_evaluating_on_another_task_takes_its_classes(run, trained, tmp_path):
    arguments = [f"checkpoint={trained / 'checkpoints/best.ckpt'}", "data.task=scene"]
    assert run(evaluate, *arguments, "hydra.run.dir=again") == 0
    assert "test/scene/top1" in json.loads((tmp_path / "again/metrics.json").read_text())


def test_predict_ranks_candidates_that_sum_to_one(run, trained, films, capsys):
    video = next((films / "lvu/videos").glob("*.mp4"))
    code = run(predict, f"checkpoint={trained / 'checkpoints/best.ckpt'}", f"video={video}",
               "prompt='what is the genre of the movie?'", "candidates=[comedy,action]",
               "format=json")  # fmt: skip
    answers = json.loads(capsys.readouterr().out.splitlines()[-1])["answers"]
    assert code == 0
    assert {answer["answer"] for answer in answers} == {"comedy", "action"}
    assert sum(answer["probability"] for answer in answers) == pytest.approx(1, abs=1e-5)


def test_predict_generates_answers_most_probable_first(run, trained, films, capsys):
    video = next((films / "lvu/videos").glob("*.mp4"))
    code = run(predict, f"checkpoint={trained / 'checkpoints/best.ckpt'}", f"video={video}",
               "prompt='what is the genre of the movie?'", "num_answers=3",
               "format=json")  # fmt: skip
    answers = json.loads(capsys.readouterr().out.splitlines()[-1])["answers"]
    probabilities = [answer["probability"] for answer in answers]
    assert code == 0
    assert len(answers) == 3
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(0 <= p <= 1 for p in probabilities)


def test_predict_takes_prompts_and_films_as_they_are_called(run, trained, films, tmp_path, capsys):
    video = tmp_path / "what's [red] (1).mp4"
    shutil.copy(next((films / "lvu/videos").glob("*.mp4")), video)
    prompt = "what's [/red] here, or there?"
    code = run(predict, f"checkpoint={trained / 'checkpoints/best.ckpt'}", f"video={video}",
               f"prompt={prompt}", "candidates=['[/b]',action]")  # fmt: skip
    printed = capsys.readouterr().out
    assert code == 0
    assert prompt in printed
    assert "[/b]" in printed


def test_the_folder_of_a_run_is_its_best_checkpoint(run, trained, films, capsys):
    video = next((films / "lvu/videos").glob("*.mp4"))
    said = []
    for place in (trained, trained / "checkpoints/best.ckpt"):
        asked = [f"checkpoint={place}", f"video={video}", "prompt=what?", "format=json"]
        assert run(predict, *asked) == 0
        printed = capsys.readouterr()
        said.append(printed.out)
        assert "checkpoints/best.ckpt" in printed.err
    assert said[0] == said[1]


def test_a_number_to_choose_by_that_no_validation_gives_is_named(run, films, capsys):
    settings = ["stage.monitor=val/acc", f"data.root={films}", "data.limit_items=4", "test=false"]
    assert run(train, *LVU, *settings) == 1
    error = capsys.readouterr().err
    assert "stage.monitor=val/acc is no number of a validation; choose one of" in error
    assert "val/accuracy" in error


def test_predict_answers_along_a_film_and_at_its_end(run, trained, films, capsys):
    video = next((films / "lvu/videos").glob("*.mp4"))  # of 4 s
    code = run(predict, f"checkpoint={trained / 'checkpoints/best.ckpt'}", f"video={video}",
               "prompt='what is the genre of the movie?'", "candidates=[comedy,action]",
               "format=json", "stream_fps=2", "every_s=1.5")  # fmt: skip
    moments = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert [moment["at_s"] for moment in moments] == [1.0, 2.5, 3.5]
    answers = [moment["answers"] for moment in moments]
    assert answers[0] != answers[-1]


def test_predict_answers_along_a_folder_of_frames(run, trained, films, tmp_path, capsys):
    extract(next((films / "lvu/videos").glob("*.mp4")), tmp_path / "frames", Extraction())
    code = run(predict, f"checkpoint={trained / 'checkpoints/best.ckpt'}",
               f"video={tmp_path / 'frames'}", "prompt=what", "candidates=[comedy,action]",
               "format=json", "stream_fps=2", "every_s=1.5")  # fmt: skip
    moments = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert [moment["at_s"] for moment in moments] == [1.0, 2.5, 3.5]


def test_predict_explains_its_best_answer_or_another_in_a_picture_and_numbers(
    run, trained, films, tmp_path, capsys
):
    video = next((films / "lvu/videos").glob("*.mp4"))
    ask = [f"checkpoint={trained / 'checkpoints/best.ckpt'}", f"video={video}",
           "prompt='what is the genre of the movie?'", "candidates=[comedy,action]",
           "stage.rank_with_eos=true",
           "format=json", "explain=true", "explain_stretches=2"]  # fmt: skip
    assert run(predict, *ask) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["explanation"] == [f"{video.stem}_explained.png", f"{video.stem}_explained.json"]
    with Image.open(tmp_path / told["explanation"][0]) as image:
        assert image.format == "PNG"
    numbers = json.loads((tmp_path / told["explanation"][1]).read_text())
    assert numbers["answer"] == told["answers"][0]["answer"]
    assert numbers["log_prob"] == pytest.approx(told["answers"][0]["log_prob"], abs=1e-4)
    assert len(numbers["changes"]) == 2

    other = told["answers"][1]
    assert run(predict, *ask, f"explain_answer={other['answer']}", "explain_to=why/not.svg") == 0
    assert (tmp_path / "why/not.svg").is_file()
    numbers = json.loads((tmp_path / "why/not.json").read_text())
    assert numbers["log_prob"] == pytest.approx(other["log_prob"], abs=1e-4)


def test_the_report_of_a_test_explains_as_many_answers_of_each_task_as_asked(
    run, trained, tmp_path
):
    checkpoint = f"checkpoint={trained / 'checkpoints/best.ckpt'}"
    explain = ["callbacks.explanations.per_task=2", "callbacks.explanations.stretches=2"]
    assert run(evaluate, checkpoint, *explain, "hydra.run.dir=again") == 0
    html = (tmp_path / "again/report.html").read_text()
    assert html.count('<figure class="card explanation">') == 2
    assert "What an answer rests on" not in (trained / "report.html").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["explain=true", "explain_stretches=9"], "cannot be cut into 9 stretches"),
        (["explain=true", "explain_answer=''"], "is empty, so there is nothing to explain"),
        (["explain=true", "explain_to=why.docx"], "why.docx; end it with .png, .svg or .pdf"),
        (["explain=true", "stream_fps=1"], "explain=true looks at a film as a whole"),
        (["data.subtitles=true", "stream_fps=1"], "a stream is watched without its subtitles"),
        (["stream_fps=0"], "stream_fps must be above 0, got 0"),
        (["every_s=5"], "every_s asks along a stream; give stream_fps too"),
        (["candidates=comedy"], "candidates takes a list: candidates=[comedy,…]"),
        (["format=xml"], "format='xml' is unknown; choose table or json"),
        (["prompt="], "prompt is empty; ask something"),
        (["prompt=null"], "prompt is empty; ask something"),
        (["video=null"], "video is null; give the path of a video file"),
    ],
)
def test_what_predict_cannot_do_is_a_mistake(run, trained, films, capsys, settings, message):
    video = next((films / "lvu/videos").glob("*.mp4"))
    code = run(predict, f"checkpoint={trained / 'checkpoints/best.ckpt'}", f"video={video}",
               "prompt=what", *settings)  # fmt: skip
    assert code == 1
    assert message in capsys.readouterr().err


def test_stage_two_starts_from_a_checkpoint_of_stage_one(run, films, tmp_path):
    root = f"data.root={films}"
    first = ["experiment=webvid_alignment", *SMALL, root, "hydra.run.dir=one", "test=false"]
    assert run(train, *first) == 0
    second = ["experiment=lvu_scene", *SMALL, root, "hydra.run.dir=two", "test=false",
              "init.alignment=one/checkpoints/last.ckpt", "optimizer.lr=0"]  # fmt: skip
    assert run(train, *second) == 0
    one, two = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    )
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_stage_that_is_run_first_is_of_the_same_model(run, films, tmp_path):
    asked = {"vision.max_num_frames": 16, "vision.position_init": "zeros",
             "vision.norm_eps": 1e-5, "alignment.embed_dim": 32,
             "data.limit_items": 4}  # fmt: skip
    settings = [f"{key}={value}" for key, value in asked.items()]
    assert run(train, "experiment=demo", *SMALL, f"data.root={films}", "prepare=null", "test=false",
               *settings, "hydra.run.dir=run") == 0  # fmt: skip
    first = OmegaConf.load(tmp_path / "run/demo_alignment/config.yaml")
    assert {key: OmegaConf.select(first, key) for key in asked} == asked


def test_weights_of_a_file_are_tested_as_they_are_and_trained_on(run, trained, films, tmp_path):
    state = torch.load(trained / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    parts = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}
    save_file(parts, tmp_path / "parts.safetensors")
    common = ["experiment=lvu_genre", *SMALL, f"data.root={films}",
              f"init.weights={tmp_path}/parts.safetensors"]  # fmt: skip
    assert run(train, *common, "trainer.max_epochs=0", "hydra.run.dir=tested") == 0
    tested = json.loads((tmp_path / "tested/metrics.json").read_text())
    before = json.loads((trained / "metrics.json").read_text())
    before = {name: value for name, value in before.items() if name.startswith("test/")}
    assert {name: tested[name] for name in before} == pytest.approx(before, abs=1e-5)
    on = [*common, "optimizer.lr=0", "test=false", "hydra.run.dir=on"]
    assert run(train, *on) == 0
    kept = torch.load(tmp_path / "on/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, kept[name]) for name, tensor in state.items())


def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(run, films, tmp_path):
    common = ["experiment=lvu_genre", *SMALL, f"data.root={films}", "test=false",
              "trainer.max_epochs=3"]  # fmt: skip
    stop = ["+callbacks.stop._target_=support.StopAtEpoch", "+callbacks.stop.epoch=2"]
    assert run(train, *common, "hydra.run.dir=whole") == 0
    run(train, *common, *stop, "hydra.run.dir=cut")
    resume = "resume=cut/checkpoints/last.ckpt"
    assert run(train, *common, resume, "hydra.run.dir=resumed") == 0
    whole, cut, resumed = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)
        for name in ("whole", "cut", "resumed")
    )
    assert (cut["epoch"], resumed["epoch"], resumed["global_step"]) == (1, 2, whole["global_step"])
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name


def test_a_sweep_ends_in_one_table(run, films, tmp_path, capsys):
    code = run(train, "-m", "experiment=lvu_genre", *SMALL, f"data.root={films}",
               "fusion=none,bidirectional", "memory.length=2", "hydra.sweep.dir=sweep")  # fmt: skip
    assert code == 0
    assert "2 jobs in sweep" in capsys.readouterr().out
    assert "bidirectional" in (tmp_path / "sweep/sweep.md").read_text()


def test_a_mistake_in_one_job_of_a_sweep_leaves_the_others_running(run, films, tmp_path, capsys):
    code = run(train, "-m", "experiment=lvu_genre", *SMALL, f"data.root={films}", "test=false",
               "data.num_frames=200,4", "hydra.sweep.dir=sweep")  # fmt: skip
    message = "200 frames were given but the frame-position table has 120 rows"
    error = capsys.readouterr().err
    assert code == 1
    assert f"job failed: {message}" in error
    assert "Traceback" not in error
    atexit.unregister(finish)
    finish(tmp_path / "sweep")
    table = (tmp_path / "sweep/sweep.md").read_text()
    assert f"| 0 | 200 | failed | {message}" in table
    assert "| 1 | 4 | done |  |" in table


def test_check_prints_one_line_of_json(run, films, capsys):
    code = run(check, "data=lvu", "data.task=genre", f"data.root={films}", "format=json")
    splits = json.loads(capsys.readouterr().out)["splits"]
    assert code == 0
    assert splits["train"]["items"] == sum(splits["train"]["classes"]["genre"].values())
    assert splits["train"]["missing_videos"] == 0


LVU = ["experiment=lvu_genre", *SMALL]


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (train, [*LVU, "data.root=/nowhere/at/all"], "data.root=/nowhere/at/all does not exist"),
        (train, LVU, "data.root is not set; give it on the command line: data.root=…"),
        (train, [*LVU, "data.root=ROOT", "data.task=plot"], "'plot' is no task of LVU; choose"),
        (train, [*LVU, "data.root=."], "annotation lvu/annotation/train.json does not exist"),
        (
            train,
            [*LVU, "data.root=ROOT", "data.num_frames=200"],
            "200 frames were given but the frame-position table has 120 rows",
        ),
        (
            train,
            [*LVU, "data.root=ROOT", "init.alignment=gone.ckpt"],
            "checkpoint gone.ckpt does not exist",
        ),
        (train, [*LVU, "data.root=ROOT", "resume=gone.ckpt"], "checkpoint gone.ckpt does not"),
        (evaluate, [], "no checkpoint is given; say checkpoint="),
        (evaluate, ["checkpoint=gone.ckpt"], "checkpoint gone.ckpt does not exist"),
        (predict, ["checkpoint=gone.ckpt", "video=a", "prompt=b"], "gone.ckpt does not exist"),
        (check, ["data=lvu", "data.root=/nowhere/at/all"], "/nowhere/at/all does not exist"),
    ],
)
def test_a_mistake_gets_one_message_and_exit_code_one(
    run, films, capsys, module, arguments, message
):
    code = run(module, *(argument.replace("ROOT", str(films)) for argument in arguments))
    error = capsys.readouterr().err
    assert code == 1
    assert "error: " in error
    assert message in error
    assert "Traceback" not in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_where_there_is_none_is_a_mistake_too(run, films, capsys):
    assert run(train, *LVU, f"data.root={films}", "trainer=gpu") == 1
    assert "sees 0 GPUs; use trainer=cpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fusion=stirring", "fusion=stirring is no choice; nearest are"),
        ("memory=elephant", "memory=elephant is no choice; nearest are"),
        ("data.nun_frames=3", "did you mean data.num_frames=3?"),
    ],
)
def test_an_unknown_group_or_key_is_named(run, films, capsys, override, message):
    assert run(train, *LVU, f"data.root={films}", override) == 1
    assert message in capsys.readouterr().err


def test_a_checkpoint_of_another_architecture_lists_its_keys(run, trained, capsys):
    arguments = [f"checkpoint={trained / 'checkpoints/best.ckpt'}", "qformer.layers=3"]
    assert run(evaluate, *arguments) == 1
    error = capsys.readouterr().err
    assert "is of another architecture" in error
    assert "missing: backbone.vision.temporal.qformer.encoder.layer.2" in error


def test_a_broken_and_a_missing_video_are_mistakes_of_predict(run, trained, tmp_path, capsys):
    (tmp_path / "empty.mp4").touch()
    for video, message in (("empty.mp4", "is empty"), ("gone.mp4", "gone.mp4 does not exist")):
        code = run(predict, f"checkpoint={trained / 'checkpoints/best.ckpt'}", f"video={video}",
                   "prompt=what")  # fmt: skip
        assert code == 1
        assert message in capsys.readouterr().err


def test_training_goes_on_below_max_broken_and_stops_above_it(run, films, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(films, root)
    annotation = json.loads((root / "lvu/annotation/train.json").read_text())
    video = next(iter(annotation))
    path = root / f"lvu/videos/{video}.mp4"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    common = [*LVU, f"data.root={root}", "test=false"]
    assert run(train, *common, "data.max_broken=0.5", "hydra.run.dir=on") == 0
    assert f"broken video {video}" in capsys.readouterr().err
    assert run(train, *common, "hydra.run.dir=off") == 1
    error = capsys.readouterr().err
    assert f"{video}: " in error
    assert "raise data.max_broken" in error
