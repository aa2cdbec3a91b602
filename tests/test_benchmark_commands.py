"""Hallucination benchmarks as a user runs them: after training, beside it, made from captions."""

import csv
import json
import re

import pytest
from hydra.utils import instantiate

from benchmark_sets import WRITERS, write_benchmarks
from mmavlm import evaluate, pope, train
from mmavlm.commands.cli import laid_over_checkpoint
from mmavlm.metrics.headline import headline
from support import SMALL, composed

PRINTED = {
    "videohallucer": ("temporal/accuracy", "all/hallucinated", "yes_no/yes_difference"),
    "eventhallusion": ("misleading/accuracy", "all/unparsed"),
    "vidhalluc": ("ach_binaryqa/item_accuracy", "ach_mcq/unparsed", "sth/mcc", "tsh/first_ratio"),
    "elv_halluc": ("object/in_accuracy", "all/sah_ratio"),
    "hallusionbench": ("figure/accuracy", "pair/accuracy", "hard/accuracy"),
    "pope": ("adversarial/f1", "all/yes_ratio"),
    "omnivchall": ("c_mc/accuracy", "type_8/accuracy", "letters/unparsed"),
    "haven": ("group/accuracy", "prior/accuracy", "yes_no/yes_ratio"),
    "avhbench": ("video/yes_ratio", "captioning/cider_plain"),
}


@pytest.fixture(scope="session")
def benchmarks(films, tmp_path_factory):
    """Each benchmark's folder by name, its films being synthetic ones."""
    videos = sorted((films / "lvu/videos").glob("*.mp4"))
    return write_benchmarks(tmp_path_factory.mktemp("benchmarks"), videos)


@pytest.mark.parametrize("name", WRITERS)
def test_a_benchmark_is_asked_of_a_checkpoint_of_another_experiment(
    run, trained, benchmarks, tmp_path, capsys, monkeypatch, name
):
    monkeypatch.setattr("mmavlm.metrics.captions.java", lambda: None)  # it takes seconds to start
    arguments = [f"checkpoint={trained / 'checkpoints/best.ckpt'}", f"experiment=eval_{name}",
                 f"data.root={benchmarks[name]}", "hydra.run.dir=asked"]  # fmt: skip
    assert run(evaluate, *arguments) == 0
    metrics = json.loads((tmp_path / "asked/metrics.json").read_text())
    assert 0 <= metrics[f"test/{name}"] <= 1
    assert metrics[f"test/{name}_low"] <= metrics[f"test/{name}"] <= metrics[f"test/{name}_high"]
    printed = capsys.readouterr().out
    assert name in printed
    assert "95 %" in printed
    assert all(part in printed for part in PRINTED[name])
    rows = [json.loads(line) for line in (tmp_path / "asked/predictions.jsonl").open()]
    truths = {row["truth"] for row in rows if row["task"] != "captioning"}
    assert truths <= {"yes", "no", "AB", "BA", "A", "BD", "C"}
    (told,) = headline(metrics)
    assert (told.name, told.items) == (name, metrics[f"test/{name}_count"])
    _, _, scores = "".join(printed.split()).rpartition("asked,test")  # a path may be folded
    assert name in scores, "the scores end it"


def test_an_experiment_given_with_a_checkpoint_joins_its_own(trained, benchmarks):
    arguments = laid_over_checkpoint(
        [f"checkpoint={trained / 'checkpoints/best.ckpt'}", "experiment=eval_pope", "data.root=/x"]
    )
    assert "experiment=[lvu_genre,eval_pope]" in arguments
    assert "data.num_frames=4" in arguments
    assert [a for a in arguments if a.startswith("data.root=")] == ["data.root=/x"]
    config = composed(*(a for a in arguments if not a.startswith(("model=", "hydra", "paths"))))
    assert config.data.reader._target_.endswith("PopeReader")
    assert (config.data.task, config.prepare, config.memory.length) == (None, None, 20)


@pytest.mark.parametrize(
    ("sound", "show"), [("clip_qformer", ("sound", "film")), ("none", ("film",))]
)
def test_avhbench_is_heard_by_a_model_with_a_branch_of_sound_and_seen_by_any(sound, show):
    config = composed("experiment=eval_avhbench", "data.root=/x", f"sound={sound}")
    assert instantiate(config.data.reader).show == show


@pytest.mark.slow
def test_a_model_of_a_mix_is_asked_of_one_set(run, films, benchmarks, tmp_path):
    assert run(train, "experiment=mix", *SMALL, f"data.root={films}", "data.epoch_items=4",
               "test=false", "hydra.run.dir=mixed") == 0  # fmt: skip
    checkpoint = f"checkpoint={tmp_path / 'mixed/checkpoints/last.ckpt'}"
    asked = {
        "test/videohallucer": ["experiment=eval_videohallucer",
                               f"data.root={benchmarks['videohallucer']}"],
        "test/scene/top1": ["data=lvu", f"data.root={films}", "data.task=scene"],
    }  # fmt: skip
    for told, arguments in asked.items():
        assert run(evaluate, checkpoint, *arguments, "hydra.run.dir=asked") == 0
        metrics = json.loads((tmp_path / "asked/metrics.json").read_text())
        assert 0 <= metrics[told] <= 1
        assert not any("msvd_qa" in name for name in metrics)


def test_a_root_is_asked_for_anew(run, trained, capsys):
    checkpoint = f"checkpoint={trained / 'checkpoints/best.ckpt'}"
    assert run(evaluate, checkpoint, "experiment=eval_pope") == 1
    assert "data.root is not set" in capsys.readouterr().err


def test_hallucination_is_measured_beside_each_validation(run, films, benchmarks, tmp_path):
    code = run(train, "experiment=lvu_genre", *SMALL, "trainer.max_epochs=2", f"data.root={films}",
               "callbacks=hallucination", "data@callbacks.hallucination.data=eventhallusion",
               f"callbacks.hallucination.data.root={benchmarks['eventhallusion']}",
               "hydra.run.dir=run")  # fmt: skip
    assert code == 0
    with (tmp_path / "run/csv/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/eventhallusion")]
    assert len(rows) == 2
    for row in rows:
        low, value, high = (float(row[f"val/eventhallusion{end}"]) for end in ("_low", "", "_high"))
        assert 0 <= low <= value <= high <= 1
        assert float(row["val/eventhallusion/all/count"]) == 9
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert "val/eventhallusion/all/yes_ratio" in metrics
    assert not any(name.startswith("test/eventhallusion") for name in metrics)
    # a curve among the first, and no details
    drawn = re.findall(
        r"<h4><bdi>(eventhallusion[\w/]*)", (tmp_path / "run/report.html").read_text()
    )
    assert set(drawn) == {"eventhallusion"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data@callbacks.hallucination.data=lvu"], "reads with LVUReader, which is no benchmark"),
        (["callbacks.hallucination.every_n_validations=0"], "must be at least 1, got 0"),
        (["data.cache=cache", "data.crop=false", "data.flip=false"], "needs the encoder"),
    ],
)
def test_a_probe_that_cannot_be_is_a_mistake(run, films, benchmarks, capsys, settings, message):
    root = f"callbacks.hallucination.data.root={benchmarks['videohallucer']}"
    code = run(train, "experiment=lvu_genre", *SMALL, f"data.root={films}",
               "callbacks=hallucination", root, *settings)  # fmt: skip
    assert code == 1
    assert message in capsys.readouterr().err


def test_pope_is_made_of_any_captions_and_asked(run, films, trained, tmp_path, capsys):
    words = tmp_path / "words.txt"
    words.write_text("person: man, someone\ncup\nboat\n*tea\n")
    # the films' captions say that a man, someone, cooks
    captions = ["data=msvd_caption", f"data.root={films}", f"vocabulary={words}"]
    assert run(pope, *captions, f"to={tmp_path}/pope") == 1
    assert "two are needed" in capsys.readouterr().err
    settings = ["data=youcook2_caption", f"data.root={films}", f"vocabulary={words}"]
    assert run(pope, *settings, f"to={tmp_path}/pope") == 1  # every segment is of cups alone
    root = tmp_path / "own"
    (root / "captions").mkdir(parents=True)
    (root / "lvu").symlink_to(films / "lvu")
    videos = [p.relative_to(films).as_posix() for p in sorted((films / "lvu/videos").iterdir())]
    texts = ["a man holds a cup", "tea is made", "a boat"]
    (root / "captions/test.jsonl").write_text("".join(
        json.dumps({"video": video, "caption": text}) + "\n"
        for video, text in zip(videos, texts, strict=False)
    ))  # fmt: skip
    assert run(pope, "data=captions", f"data.root={root}", f"vocabulary={words}") == 0
    assert "adversarial" in capsys.readouterr().out
    arguments = [f"checkpoint={trained / 'checkpoints/best.ckpt'}", "experiment=eval_pope",
                 f"data.root={root}", "hydra.run.dir=asked"]  # fmt: skip
    assert run(evaluate, *arguments) == 0
    metrics = json.loads((tmp_path / "asked/metrics.json").read_text())
    # two objects of the first film and one of each other, in three ways, each with one absent
    assert metrics["test/pope/all/count"] == 24


def test_probes_of_sounds_lie_beside_those_of_objects_and_others_are_refused(
    run, films, tmp_path, capsys
):
    root = tmp_path / "own"
    (root / "captions").mkdir(parents=True)
    (root / "lvu").symlink_to(films / "lvu")
    videos = [p.relative_to(films).as_posix() for p in sorted((films / "lvu/videos").iterdir())]
    texts = ["a dog barks", "a siren wails", "people applaud"]
    (root / "captions/test.jsonl").write_text("".join(
        json.dumps({"video": video, "caption": text}) + "\n"
        for video, text in zip(videos, texts, strict=False)
    ))  # fmt: skip
    settings = ["data=captions", f"data.root={root}", "agree=1"]
    assert run(pope, *settings, "about=smells") == 1
    assert "about=smells is unknown; choose one of objects, sounds" in capsys.readouterr().err
    assert run(pope, *settings, "about=sounds") == 0
    asked = (root / "pope_sounds/pope_adversarial.jsonl").read_text()
    assert "Is there a sound of barking in the video?" in asked
    assert not (root / "pope").exists()
