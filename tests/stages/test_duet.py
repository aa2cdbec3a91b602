"""The duet: a model that learns when to speak while a film runs."""

import json
import sys

import lightning as L
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch.utils.data import DataLoader

from mmavlm import evaluate, export, train
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError
from mmavlm.core.medium import Medium
from mmavlm.core.streams import silent
from mmavlm.core.turns import Shown, Turn
from mmavlm.hub import from_pretrained
from mmavlm.metrics.duet.calibration import TEMPERATURES
from mmavlm.metrics.duet.files import read_events, read_watched
from mmavlm.movies.duet_set import DuetSettings, make_duet_set
from mmavlm.run.build import build_backbone
from mmavlm.stages import Duet, OptimizerRecipe
from mmavlm.stages.watched_frames import as_watched, watched_films
from ranks import be_rank, spawn_ranks
from support import composed

WAYS = ["experiment=duet_movies", "experiment=duet_movies_memory"]
SMALL = ["trainer=cpu", "trainer.max_epochs=1", "data.batch_size=2",
         "callbacks.progress=null", "data.num_frames=8", "llm.width=32",
         "callbacks.overview=null"]  # fmt: skip


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    root = tmp_path_factory.mktemp("duet")
    make_duet_set(root, DuetSettings(films=10, size=32))
    return root


@pytest.fixture(scope="module", params=WAYS, ids=["frames", "memory"])
def trained(request, films, tmp_path_factory):
    """An experiment, and the folder of its run."""
    folder = tmp_path_factory.mktemp("trained")
    given = [request.param, *SMALL, f"data.root={films}", f"hydra.run.dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *given])
        train.main()
    return request.param, folder


def batches_of(films, way, *settings):
    """The model of an experiment, and its batches of validation."""
    config = composed(way, *SMALL, f"data.root={films}", *settings)
    data = instantiate(config.data)
    model = build_backbone(config).eval()
    data.image_size = model.vision.encoder.image_size
    data.setup("fit")
    return model, [*data.val_dataloader()]


def batch_of(films, way, *settings):
    """The same with the first of them."""
    model, batches = batches_of(films, way, *settings)
    return model, batches[0]


@pytest.mark.parametrize("way", WAYS, ids=["frames", "memory"])
def test_every_frame_of_a_film_has_a_state_and_the_heads_learn_from_it(films, way):
    model, batch = batch_of(films, way)
    read = model.read_streams(batch)
    shown = [
        (talk, frame)
        for talk, conversation in enumerate(batch.conversations)
        for turn in conversation.turns
        if turn.role == "stream"
        for frame in range(*turn.parts[0].frames)
    ]
    assert sorted((at.talk, at.frame) for at in read.frames) == sorted(shown)
    labels = torch.ones(len(read.frames), 2, dtype=torch.int64)
    model.require_heads().loss(read.hidden, labels).backward()
    for name in ("informative", "relevance"):
        assert model.heads.layers[name].weight.grad.abs().sum() > 0
    assert model.llm.model.get_input_embeddings().weight.grad.abs().sum() > 0


@pytest.mark.parametrize("times", ["null", "turn", "frame"])
@pytest.mark.parametrize("way", WAYS, ids=["frames", "memory"])
def test_states_are_those_of_a_film_that_is_watched_as_it_runs(films, way, times):
    model, batch = batch_of(films, way, f"llm.stream_times={times}")
    batch = as_watched(batch)
    with torch.no_grad():
        read = model.read_streams(batch)
        watched = model.watch(batch)
        tokens, _, looks = model.vision.newest_looks(watched)
    own = [n for n, at in enumerate(read.frames) if at.talk == 0]
    order = sorted(own, key=lambda n: read.frames[n].frame)
    session, states = model.llm.watching(latest=looks.latest), []
    for turn in batch.conversations[0].turns:
        if turn.role == "stream":
            for frame in range(*turn.parts[0].frames):
                start, stop = looks.span(0, frame, frame + 1)
                time_s = batch.timestamps_s[0, frame].item()
                states.append(session.see(tokens[0, start:stop], time_s))
        else:
            session.say(turn)
    torch.testing.assert_close(torch.stack(states), read.hidden[order], atol=1e-4, rtol=1e-4)


def test_a_run_scores_each_frame_of_the_films_it_is_judged_by(trained, films):
    _, folder = trained
    for split in ("val", "test"):
        watched = read_watched(folder / f"watched_{split}.jsonl")
        truth = read_events(films / f"questions/{split}.json")
        assert {film.question_id for film in watched} == {one.question_id for one in truth}
        assert all(set(film.scores) == {"informative", "relevance"} for film in watched)
        assert all(len(film.times_s) == 8 for film in watched)
    kept = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    heads = {name.removeprefix("backbone.heads.") for name in kept if "heads." in name}
    weights = {f"layers.{n}.weight" for n in ("informative", "relevance")}
    assert heads == {*weights, "temperature", "shift"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert 0 <= metrics["test/ap"] <= 1
    assert 0 <= metrics["test/informative_ece"] <= 1


def test_what_a_run_scores_is_what_its_checkpoint_scores(run, trained, films, tmp_path):
    way, folder = trained
    best = folder / "checkpoints/best.ckpt"
    assert run(evaluate, f"checkpoint={best}", f"data.root={films}", "hydra.run.dir=again") == 0
    again = tmp_path / "again/watched_test.jsonl"
    assert again.read_text() == (folder / "watched_test.jsonl").read_text()
    assert run(export, f"checkpoint={best}", "to=exported") == 0
    model, batch = batch_of(films, way)
    model.load_state_dict(from_pretrained(tmp_path / "exported").state_dict())
    assert model.heads.temperature[0] != 1
    assert model.heads.shift[0] != 0
    kept = {film.question_id: film for film in read_watched(folder / "watched_val.jsonl")}
    with torch.no_grad():
        read = model.read_streams(as_watched(batch))
        scores = model.heads.scores(read.hidden)
    for film in watched_films(as_watched(batch), read, scores, model.heads.names):
        assert kept[film.question_id].scores["informative"] == pytest.approx(
            film.scores["informative"], abs=1e-5
        )


def test_a_run_that_does_not_calibrate_leaves_scores_as_they_were_trained(run, films, tmp_path):
    given = [WAYS[0], *SMALL, f"data.root={films}", "stage.calibrate=false"]
    assert run(train, *given, "hydra.run.dir=run") == 0
    kept = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert kept["backbone.heads.temperature"].tolist() == [1, 1]
    assert kept["backbone.heads.shift"].tolist() == [0, 0]


def validated(films, rank=0, processes=1, **trainer):
    """A stage after one validation of the batches that a process has of all."""
    one_by_one = "data.eval_batch_size=1"
    torch.manual_seed(4)  # each process builds heads of its own, and these can be calibrated
    backbone, batches = batches_of(films, WAYS[0], one_by_one)
    stage = Duet(backbone, OptimizerRecipe())
    loader = DataLoader(batches[rank::processes], batch_size=None)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(
        accelerator="cpu", use_distributed_sampler=False, enable_checkpointing=False,
        **quiet, **trainer,
    )  # fmt: skip
    trainer.validate(stage, loader, verbose=False)
    return stage


def validate_a_share(rank, port, films, path):
    be_rank(rank, port)
    strategy = L.pytorch.strategies.DDPStrategy(process_group_backend="gloo")
    heads = validated(films, rank, 2, strategy=strategy, devices=2).heads
    torch.save([heads.temperature, heads.shift], f"{path}/{rank}.pt")


@pytest.mark.slow
@pytest.mark.distributed
def test_several_processes_agree_on_the_calibration_that_one_would_find(films, tmp_path):
    spawn_ranks(validate_a_share, films, tmp_path)
    one = validated(films).heads
    for rank in range(2):
        for own, expected in zip(
            torch.load(tmp_path / f"{rank}.pt"), (one.temperature, one.shift), strict=True
        ):
            torch.testing.assert_close(own, expected, atol=1e-4, rtol=1e-4)
    coldest, hottest = TEMPERATURES
    assert coldest * 1.1 < one.temperature[0] < hottest / 1.1


@pytest.mark.parametrize(
    ("settings", "task", "headline"),
    [((), "speaking", "speaking_f1"), (("data=duet_searches",), "grounding", "miou")],
    ids=["questions", "searches"],
)
def test_a_run_is_scored_as_its_files_are_by_what_validation_chose(
    run, films, tmp_path, capsys, settings, task, headline
):
    assert run(train, WAYS[0], *settings, *SMALL, f"data.root={films}", "hydra.run.dir=run") == 0
    assert "chosen on val" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    own = {name: v for name, v in metrics.items() if name.startswith(f"test/{task}/")}
    assert {f"test/{task}/{headline}{end}" for end in ("", "_low", "_high")} <= own.keys()
    folder = "questions" if task == "speaking" else "searches"
    published = [f"predictions=run/watched_{{}}.jsonl truth={films}/{folder}/{{}}.json",
                 "predictions=run/watched_{}.jsonl truth=run/truth_{}.jsonl"]  # fmt: skip
    for files in (*published, "predictions=run"):
        val = [f"val_{word.format('val', 'val')}" for word in files.split()] if "{" in files else []
        given = [word.format("test") for word in files.split()]
        assert run(evaluate, *given, *val, f"task={task}", "hydra.run.dir=again") == 0
        again = json.loads((tmp_path / "again/metrics.json").read_text())
        assert own == {name: pytest.approx(again[name], rel=1e-5) for name in own}
    told = json.loads((tmp_path / "run/duet.json").read_text())
    assert told["chosen"]["split"] == "val"
    again = json.loads((tmp_path / "again/duet.json").read_text())
    assert told == {name: again[name] for name in told}
    page = (tmp_path / "run/report.html").read_text()
    assert f"In metrics.json: test/{task}/{headline}" in page
    assert "chosen on val" in page


def test_without_validation_nothing_is_chosen_and_it_is_said(run, films, tmp_path, capsys):
    assert run(train, WAYS[0], *SMALL, f"data.root={films}", "hydra.run.dir=run", "test=false") == 0
    assert not (tmp_path / "run/duet.json").exists()
    capsys.readouterr()
    checkpoint = "checkpoint=run/checkpoints/last.ckpt"
    given = [checkpoint, f"data.root={films}", "+trainer.limit_val_batches=0"]
    assert run(evaluate, *given, "hydra.run.dir=tested") == 0
    assert "no film of the validation split was watched" in capsys.readouterr().err
    metrics = json.loads((tmp_path / "tested/metrics.json").read_text())
    assert "test/ap" in metrics
    assert not any("speaking" in name for name in metrics)
    assert not (tmp_path / "tested/duet.json").exists()
    assert read_events(tmp_path / "tested/truth_test.jsonl")


@pytest.mark.parametrize(
    "settings", [["temporal.memory=${memory}", "memory.length=3"], ["temporal.max_frames=2"]]
)
def test_looks_that_leave_out_frames_are_refused(films, settings):
    model, batch = batch_of(films, WAYS[0], *settings)
    with pytest.raises(ConfigError, match="have no tokens of their own"):
        model.read_streams(batch)


def frames_shown(talk):
    spans = [turn.parts[0].frames for turn in talk.turns if turn.role == "stream"]
    return [frame for span in spans for frame in range(*span)]


def test_answers_are_not_there_when_frames_are_scored(films):
    _, batch = batch_of(films, WAYS[0])
    for talk in batch.conversations:
        seen = silent(talk)
        assert all(turn.role != "assistant" for turn in seen.turns)
        assert frames_shown(seen) == frames_shown(talk)


def test_a_stage_without_heads_is_refused(run, films, capsys):
    assert run(train, WAYS[0], *SMALL, f"data.root={films}", "heads=none") == 1
    assert "choose heads=duet" in capsys.readouterr().err


def test_heads_need_a_language_model():
    with pytest.raises(InstantiationException, match="choose heads=none"):
        build_backbone(composed("experiment=duet_movies", "backbone.llm=null", "data.root=x"))


def test_a_shown_film_is_one_stream_when_nothing_was_said():
    film = [Turn("stream", (Shown(0, (0, 2)),)), Turn("stream", (Shown(0, (2, 3)),))]
    talk = Conversation(
        (Turn("user", ("why?",)), film[0], Turn("assistant", ("so",)), film[1]),
        (Medium(medium_id="film", source="film.mp4"),),
    )
    assert [turn.role for turn in silent(talk).turns] == ["user", "stream"]
    assert silent(talk).turns[1].parts == (Shown(0, (0, 3)),)
