"""The duet: a model that learns when to speak while a film runs."""

import json

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from mmavlm import evaluate, train
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError
from mmavlm.core.medium import Medium
from mmavlm.core.streams import silent
from mmavlm.core.turns import Shown, Turn
from mmavlm.metrics.duet.files import read_events, read_watched
from mmavlm.movies.duet_set import DuetSettings, make_duet_set
from mmavlm.run.build import build_backbone
from mmavlm.stages.watched_frames import as_watched
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


def batch_of(films, way, *settings):
    """The model of an experiment, and its first batch of validation."""
    config = composed(way, *SMALL, f"data.root={films}", *settings)
    data = instantiate(config.data)
    model = build_backbone(config).eval()
    data.image_size = model.vision.encoder.image_size
    data.setup("fit")
    return model, next(iter(data.val_dataloader()))


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


@pytest.mark.parametrize("way", WAYS, ids=["frames", "memory"])
def test_states_are_those_of_a_film_that_is_watched_as_it_runs(films, way):
    model, batch = batch_of(films, way)
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
                states.append(session.see(tokens[0, start:stop]))
        else:
            session.say(turn)
    torch.testing.assert_close(torch.stack(states), read.hidden[order], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "way", [WAYS[:1], [WAYS[1], "stage.frames_a_film=2"]], ids=["frames", "memory"]
)
def test_a_run_scores_each_frame_of_the_films_it_is_judged_by(run, films, tmp_path, way):
    assert run(train, *way, *SMALL, f"data.root={films}", "hydra.run.dir=run") == 0
    for split in ("val", "test"):
        watched = read_watched(tmp_path / f"run/watched_{split}.jsonl")
        truth = read_events(films / f"questions/{split}.json")
        assert {film.question_id for film in watched} == {one.question_id for one in truth}
        assert all(set(film.scores) == {"informative", "relevance"} for film in watched)
        assert all(len(film.times_s) == 8 for film in watched)
    kept = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    heads = [name for name in kept if "heads." in name]
    assert heads == [f"backbone.heads.layers.{n}.weight" for n in ("informative", "relevance")]
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert 0 <= metrics["test/ap"] <= 1


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
    assert run(evaluate, checkpoint, f"data.root={films}", "hydra.run.dir=tested") == 0
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
