"""The recipes of Video-LLaMA's vision branch are its own, row by row, and they train."""

import csv
import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from mmavlm import train
from mmavlm.weights.checkpoint import read_checkpoint
from mmavlm.weights.trust import OF_THE_MODEL, Fence
from support import SMALL, composed, tiny_backbone

# Peak, least and first rate, warm-up, epochs, steps of an epoch on 8 GPUs, batch, longest answer.
ROWS = {
    "pretrain": (1e-4, 8e-5, 1e-6, 2500, 5, 2500, 32, 32),
    "instruct": (3e-5, 1e-5, 1e-6, 1000, 3, 1000, 4, 320),
}
SHARES = {
    "pretrain": {"webvid": 100, "cc3m": 24},
    "instruct": {"cc_sbu": 1, "llava": 1, "videochat": 1},
}
QUICK = ["data.num_frames=2", "stage.num_beams=1", "stage.num_answers=1", "stage.max_new_tokens=2"]


def recipe(name, *overrides):
    return composed(f"experiment=video_llama_vision_{name}", "data.root=/data", *overrides)


@pytest.mark.parametrize("name", ROWS)
def test_a_recipe_has_the_published_row(name):
    config = recipe(name)
    data, optimizer = config.data, config.optimizer
    steps = data.epoch_items / data.batch_size / 8
    assert ROWS[name] == (
        *(optimizer.lr, optimizer.min_lr, optimizer.warmup_lr, optimizer.warmup_steps),
        *(config.trainer.max_epochs, steps, data.batch_size, config.llm.max_answer_tokens),
    )
    assert (optimizer.weight_decay, list(optimizer.betas), config.seed) == (0.05, [0.9, 0.999], 42)
    assert dict(data.weights) == SHARES[name]
    assert (data.num_frames, config.alignment, config.vision.position_init) == (8, None, "none")
    for part in data.sets.values():
        assert (part.crop, part.flip) == (True, False)
        assert part.num_frames == (1 if "MiniGPT4" in part.reader._target_ else 8)


@pytest.mark.parametrize("name", ROWS)
def test_what_a_checkpoint_of_a_recipe_says_of_its_model_is_admitted(name):
    config = OmegaConf.to_container(recipe(name), resolve=True)
    fence = Fence("a checkpoint")
    for group in (*OF_THE_MODEL, "optimizer", "stage"):
        assert list(fence.objections(group, config.get(group))) == []


def test_video_q_former_positions_projector_and_the_norm_in_front_learn():
    model = tiny_backbone("experiment=video_llama_vision_pretrain", "llm.trainable=false")
    named = model.named_parameters()
    learn = {tuple(name.split(".")[1:3]) for name, weight in named if weight.requires_grad}
    assert {part for part, _ in learn} == {"norm", "temporal", "projector"}
    inside = {name for part, name in learn if part == "temporal"}
    assert inside == {"time_qformer", "time_queries", "time_table"}


@pytest.fixture
def sets(tmp_path, make_clip):
    """The five sets of both recipes, a few entries of each; LLaVA's has texts alone too."""
    root = tmp_path / "sets"
    clip = make_clip("clip.mp4", 6)
    films = [f"p{n % 2}/{n}" for n in range(12)]
    for film in films:
        path = root / "webvid/videos" / f"{film}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(clip)
    picture = Image.fromarray(np.zeros((24, 32, 3), np.uint8))
    for folder in ("cc3m/image", "cc_sbu_align/image", "coco/train2014"):
        (root / folder).mkdir(parents=True)
        for n in range(12):
            prefix = "COCO_train2014_" if folder.startswith("coco") else ""
            picture.save(root / folder / f"{prefix}{n}.jpg")
    for split in ("train", "val"):
        with (root / f"webvid/{split}.csv").open("w", newline="") as file:
            rows = [film.split("/")[::-1] for film in films[:: 1 if split == "train" else 6]]
            csv.writer(file).writerows(
                [["videoid", "name", "page_dir"], *([name, "a cat", page] for name, page in rows)]
            )
    captions = [{"image_id": str(n), "caption": f"a bus {n}"} for n in range(12)]
    for folder in ("cc3m", "cc_sbu_align"):
        (root / folder / "filter_cap.json").write_text(json.dumps({"annotations": captions}))
    said = [("human", "<image>\nWhat?"), ("gpt", "A bus."), ("human", "Red?"), ("gpt", "Yes.")]
    talks = [{"id": str(n), "image": f"{n}.jpg", "conversations": turns(said)} for n in range(12)]
    alone = [("human", "Hello."), ("gpt", "Hi.")]
    talks += [{"id": f"t{n}", "conversations": turns(alone)} for n in range(6)]
    pairs = [{"video": f"{film}.mp4", "QA": [{"q": "Who?", "a": "A cat."}] * 2} for film in films]
    for name, rows in (("llava_instruct/llava_instruct_150k", talks),
                       ("videochat_instruct/videochat_instruct_11k", pairs)):  # fmt: skip
        path = root / f"{name}.json"
        path.parent.mkdir()
        path.write_text(json.dumps(rows))
    return root


def turns(said):
    return [{"from": who, "value": text} for who, text in said]


def trains(run, name, root, *overrides):
    arguments = (f"experiment=video_llama_vision_{name}", *SMALL, *QUICK, f"data.root={root}")
    return run(train, *arguments, f"hydra.run.dir={name}", *overrides)


def losses(folder):
    (path,) = folder.rglob("metrics.csv")
    with path.open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def weights(tmp_path, name):
    return read_checkpoint(tmp_path / name / "checkpoints/last.ckpt")["state_dict"]


@pytest.mark.slow
def test_both_stages_train_on_films_pictures_and_texts_alone_beside_a_frozen_llm(
    run, sets, tmp_path
):
    frozen = ("llm.trainable=false", "trainer.log_every_n_steps=1")
    settings = (*frozen, "data.epoch_items=16", "data.sets.cc3m.reader.held_out=0.3")
    assert trains(run, "pretrain", sets, *settings) == 0
    assert np.isfinite(losses(tmp_path / "pretrain")).all()
    held = [f"data.sets.{name}.reader.held_out=0.3" for name in SHARES["instruct"]]
    start = f"init.checkpoint={tmp_path}/pretrain/checkpoints/last.ckpt"
    still = [f"optimizer.{rate}=0" for rate in ("lr", "min_lr", "warmup_lr")]
    settings = (*frozen, *held, *still, start, "data.epoch_items=36", "data.batch_size=1")
    assert trains(run, "instruct", sets, *settings) == 0
    assert len(losses(tmp_path / "instruct")) > 20
    assert np.isfinite(losses(tmp_path / "instruct")).all()
    before, after = weights(tmp_path, "pretrain"), weights(tmp_path, "instruct")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
