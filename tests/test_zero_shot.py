"""InstructBLIP with the memory put in and nothing trained, as a user types it."""

import json
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file

import small_instructblip
from mmavlm import evaluate, predict
from mmavlm.core.generation import Generation
from mmavlm.data.collate import collate
from mmavlm.run import build_backbone
from mmavlm.weights.untrained import random_parts
from support import SMALL, composed

CONF = Path(__file__).parents[1] / "conf"
ZERO_SHOT = sorted(path.stem for path in (CONF / "experiment").glob("zero_shot_*.yaml"))
SETS = [name.removeprefix("zero_shot_") for name in ZERO_SHOT]
# What is not asked by itself: captions to align with, films of our own making, mixes of the sets.
FOR_TRAINING = {
    "videos", "captions", "webvid", "shards", "movies", "mix", "llava", "videochat", "minigpt4",
    "conversations", "sounds", "heard_videos", "hf_rows",
}  # fmt: skip
# Films that are watched live: what is scored there is each frame.
WATCHED = {
    "charades_sta", "dense_captions", "duet_movies", "duet_searches", "grounding", "magqa",
    "qvhighlights", "youcook2_dense",
}  # fmt: skip
# Those are asked by an experiment of their own, with a checkpoint or without.
BENCHMARKS = {p.stem.removeprefix("eval_") for p in (CONF / "experiment").glob("eval_*.yaml")}
QUICK = [o for o in SMALL if o != "model=tiny"] + ["stage.num_beams=2", "stage.num_answers=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_instructblip.save(tmp_path_factory.mktemp("instructblip"))


@pytest.fixture
def settings(folder, films):
    return [*QUICK, *small_instructblip.overrides(folder), f"data.root={films}"]


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_every_set_that_has_questions_can_be_asked_untrained():
    sets = {path.stem for path in (CONF / "data").glob("*.yaml")}
    assert set(SETS) == sets - FOR_TRAINING - WATCHED - BENCHMARKS


@pytest.mark.parametrize("name", [name for name in SETS if name != "lvu"])
def test_only_the_alignment_differs_from_the_recipe_of_the_set(name):
    asked, trained = (
        OmegaConf.to_container(composed(f"experiment={e}")) for e in (f"zero_shot_{name}", name)
    )
    assert {key for key in asked if asked[key] != trained[key]} == {"alignment"}
    assert asked["alignment"] is None


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ZERO_SHOT)
def test_every_set_is_answered_by_pretrained_weights_alone(run, settings, tmp_path, experiment):
    assert run(evaluate, f"experiment={experiment}", *settings, "hydra.run.dir=run") == 0
    scores = ("/top1", "/cider_plain")
    assert any(name.endswith(scores) for name in metrics(tmp_path / "run"))
    rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").open()]
    assert all(row["answers"] for row in rows)


def test_an_evaluation_without_checkpoint_says_so_and_asks_the_pretrained_model(
    run, settings, folder, tmp_path
):
    assert run(evaluate, "experiment=zero_shot_msvd_qa", *settings, "hydra.run.dir=run") == 0
    log = (tmp_path / "run/evaluate.log").read_text()
    assert "nothing was trained, and nothing is loaded beyond the weights of" in log
    assert str(folder) in log
    config = composed("experiment=zero_shot_msvd_qa", *settings)
    data, model = instantiate(config.data), build_backbone(config).eval()
    data.image_size = model.vision.encoder.image_size
    batch = collate([data.dataset("test")[0]])
    generation = Generation(
        num_beams=2, num_answers=2, min_new_tokens=0, max_new_tokens=9,
        repetition_penalty=1.5, penalize_bos=True, length_penalty=0.0,
    )  # fmt: skip
    expected = model.generate(batch, generation)
    row = json.loads((tmp_path / "run/predictions.jsonl").open().readline())
    assert row["item_id"] == batch.item_id[0]
    assert [a["text"] for a in row["answers"]] == [a.text for a in expected[0]]


def test_videos_without_a_training_split_can_be_asked(run, settings, films, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/lvu").symlink_to(films / "lvu")
    (tmp_path / "mine/test.jsonl").write_text((films / "test.jsonl").read_text())
    arguments = ["experiment=zero_shot_own_videos", *settings, f"data.root={tmp_path}/mine"]
    assert run(evaluate, *arguments, "hydra.run.dir=run") == 0
    assert metrics(tmp_path / "run")["test/open/count"] > 0


def test_questions_with_options_are_answered_ranked_and_told_unparsed(
    run, settings, films, tmp_path
):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/lvu").symlink_to(films / "lvu")
    rows = [json.loads(line) for line in (films / "test.jsonl").open()]
    options = {"options": ["comedy", "movie"], "answer": "comedy"}
    lines = [json.dumps(row | options) for row in rows]
    (tmp_path / "mine/test.jsonl").write_text("\n".join(lines))
    arguments = ["experiment=zero_shot_own_videos", *settings, f"data.root={tmp_path}/mine",
                 "data.reader.options=texts"]  # fmt: skip
    assert run(evaluate, *arguments, "hydra.run.dir=run") == 0
    found = metrics(tmp_path / "run")
    assert found["test/open/parsed_of"] == found["test/open/rank_count"] == len(rows)
    predictions = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").open()]
    unparsed = [row for row in predictions if row["answers"][0]["text"] == ""]
    assert found["test/open/unparsed"] == len(unparsed) / len(rows)
    assert all(row["said"] for row in predictions)
    assert {a["text"] for row in predictions for a in row["ranking"]} == {"comedy", "movie"}
    arguments += ["stage.answer_by=rank", "hydra.run.dir=ranked"]
    assert run(evaluate, *arguments) == 0
    ranked = metrics(tmp_path / "ranked")
    assert ranked["test/open/rank_top1"] == found["test/open/rank_top1"]
    assert "test/open/top1" not in ranked


def test_one_film_can_be_asked_without_training(run, folder, films, capsys):
    video = next((films / "lvu/videos").glob("*.mp4"))
    arguments = ["experiment=zero_shot_own_videos", *small_instructblip.overrides(folder),
                 "data.num_frames=4", f"video={video}", "prompt='what happens ?'",
                 "candidates=[comedy,movie]", "format=json"]  # fmt: skip
    assert run(predict, *arguments) == 0
    answers = json.loads(capsys.readouterr().out.splitlines()[-1])["answers"]
    assert {answer["answer"] for answer in answers} == {"comedy", "movie"}


@pytest.mark.parametrize("module", [evaluate, predict])
def test_parts_at_random_values_are_named_and_refused(run, films, capsys, module):
    video = next((films / "lvu/videos").glob("*.mp4"))
    film = [f"video={video}", "prompt=b"] if module is predict else []
    arguments = ["experiment=zero_shot_msvd_qa", *SMALL, f"data.root={films}", *film]
    assert run(module, *arguments) == 1
    error = capsys.readouterr().err
    assert (
        "nothing was loaded into vision.encoder, vision.norm, vision.temporal.query_tokens, "
        "vision.temporal.qformer, vision.projector, llm: the answers would be chance"
    ) in error


def test_chance_is_measured_when_it_is_asked_for(run, films, tmp_path):
    arguments = ["experiment=zero_shot_msvd_qa", *SMALL, f"data.root={films}"]
    assert run(evaluate, *arguments, "init.allow_random=true", "hydra.run.dir=run") == 0
    log = (tmp_path / "run/evaluate.log").read_text()
    assert "at random values, as init.allow_random says: vision.encoder, " in log


@pytest.mark.parametrize("start", ["init.alignment=a.ckpt", "init.experiment=demo_alignment"])
def test_where_training_would_start_is_no_place_to_evaluate_from(run, settings, capsys, start):
    Path("a.ckpt").touch()
    assert run(evaluate, "experiment=zero_shot_msvd_qa", *settings, start) == 1
    assert "is where training starts; without a checkpoint nothing is trained" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("more", "left"),
    [
        ([], []),
        (["fusion=bidirectional", "fusion.heads=4"], ["vision.fusion"]),
        (["alignment=info_nce"], ["alignment"]),
        (["llm=tiny", "llm.width=32"], ["llm"]),
        (["alignment=info_nce", "stage=semantic_alignment"], ["alignment"]),
    ],
)
def test_what_nothing_was_loaded_into_is_random(folder, more, left):
    own = small_instructblip.overrides(folder)
    if "llm=tiny" in more:
        own = [override for override in own if not override.startswith("llm.")]
    config = composed("alignment=none", *own, *more)
    assert random_parts(config, build_backbone(config)) == left


def test_parts_from_a_file_are_not_random(tmp_path):
    config = composed("alignment=none")
    state = build_backbone(config).state_dict()
    held = {
        name: t
        for name, t in state.items()
        if name.startswith(("vision.encoder", "vision.temporal"))
    }
    save_file({n: torch.clone(t) for n, t in held.items()}, tmp_path / "some.safetensors")
    config.init.weights = str(tmp_path / "some.safetensors")
    assert random_parts(config, build_backbone(config)) == [
        "vision.norm",
        "vision.projector",
        "llm",
    ]
