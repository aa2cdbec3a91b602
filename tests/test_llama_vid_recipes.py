"""The recipes of LLaMA-VID are its own, row by row, and its stages train one behind another."""

import csv
import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file

from mmavlm import export, train
from mmavlm.weights.trust import OF_THE_MODEL, Fence
from support import SMALL, composed, tiny_backbone

# Rate, rows of an epoch, batch of 8 GPUs, of which a GPU holds.
ROWS = {
    "pretrain": (1e-3, 558_000 + 232_000, 256, 32),
    "instruct": (2e-5, 665_000 + 98_000, 128, 4),
    "long": (2e-5, 15_000, 8, 1),
}
QUICK = [
    "optimizer.warmup_steps=0",
    "stage.num_beams=1",
    "stage.num_answers=1",
    "stage.max_new_tokens=2",
]
# What learns beside the content's projection: reader, context's projections, language model.
LEARN = {
    "pretrain": (False, True, False),
    "instruct": (True, True, True),
    "long": (False, False, True),
}


def recipe(name, *overrides):
    return composed(f"experiment=llama_vid_{name}", "data.root=/data", *overrides)


@pytest.mark.parametrize("name", ROWS)
def test_a_recipe_has_the_published_row(name):
    config = recipe(name)
    lr, rows, batch, of_gpu = ROWS[name]
    optimizer, trainer = config.optimizer, config.trainer
    assert (optimizer.lr, optimizer.weight_decay, optimizer.min_lr) == (lr, 0, None)
    assert (config.data.batch_size, trainer.max_epochs) == (of_gpu, 1)
    assert of_gpu * trainer.accumulate_grad_batches * 8 == batch
    assert optimizer.warmup_steps == pytest.approx(0.03 * rows / batch, abs=1)
    temporal = config.temporal
    assert (temporal.content, temporal.projector) == ("mean", "mlp2x_gelu")
    assert (config.vision.norm_eps, config.vision.position_init) == (None, "none")


def test_each_stage_shows_films_in_its_own_way():
    first, second = (recipe(name).data.reader for name in ("pretrain", "instruct"))
    assert (first.guide_only, first.show_again) == (True, False)
    assert (second.guide_only, second.show_again) == (False, True)


def test_the_long_recipe_has_room_for_two_hours():
    config = composed("experiment=llama_vid_long", "data.root=/data", "model=llama_vid_long")
    llm, data = config.llm, config.data
    assert llm.rope_scaling == {"rope_type": "linear", "factor": 16}
    assert 2 * data.num_frames + llm.max_prompt_tokens + llm.max_answer_tokens <= 65536
    assert 2 * config.temporal.max_frames + llm.max_prompt_tokens + llm.max_answer_tokens <= 65536
    assert (config.prompt_tokenizer.max_length, config.qformer_queries) == (256, 32)


@pytest.mark.parametrize("name", ROWS)
def test_what_a_checkpoint_of_a_recipe_says_of_its_model_is_admitted(name):
    config = OmegaConf.to_container(recipe(name), resolve=True)
    fence = Fence("a checkpoint")
    for group in (*OF_THE_MODEL, "optimizer", "stage"):
        assert list(fence.objections(group, config.get(group))) == []


@pytest.mark.parametrize("name", ROWS)
def test_what_a_stage_trains_is_what_the_paper_trains(name):
    model = tiny_backbone(f"experiment=llama_vid_{name}")
    temporal, projector = model.vision.temporal, model.vision.projector

    def learns(*modules):
        (answer,) = {p.requires_grad for module in modules for p in module.parameters()}
        return answer

    reader = learns(temporal.qformer, temporal.norm)
    assert temporal.query_tokens.requires_grad == reader
    context = learns(temporal.query, temporal.key, projector.context)
    assert (reader, context, learns(model.llm)) == LEARN[name]
    assert learns(projector.content)
    assert not learns(model.vision.encoder)


@pytest.fixture
def sets(tmp_path, make_clip):
    """Pictures and films for the first two stages, and rows of one's own for the third."""
    root, clip = tmp_path / "sets", make_clip("clip.mp4", 6)
    for folder in ("images", "videos"):
        (root / folder).mkdir(parents=True)
    picture = Image.fromarray(np.zeros((24, 32, 3), np.uint8))
    rows = []
    for n in range(12):
        picture.save(root / f"images/{n}.jpg")
        (root / f"videos/{n}.mp4").symlink_to(clip)
        for kind, name in (("image", f"{n}.jpg"), ("video", f"{n}.mp4")):
            said = ["<image>\nWhat?", f"A bus {n}.", "Red?", "Yes."]
            talk = [{"from": ("human", "gpt")[k % 2], "value": v} for k, v in enumerate(said)]
            rows.append({"id": str(n), kind: name, "conversations": talk})
    for name in ("llava_558k_with_webvid", "llava_v1_5_mix665k_with_video_chatgpt"):
        (root / f"{name}.json").write_text(json.dumps(rows))
    asked = {"role": "user", "parts": [{"medium": 0}, "Who?"]}
    row = {"media": [{"source": "videos/0.mp4"}],
           "turns": [asked, {"role": "assistant", "parts": ["A cat."]}]}  # fmt: skip
    for split in ("train", "val", "test"):
        (root / f"{split}.jsonl").write_text("\n".join(map(json.dumps, [row] * 4)))
    return root


@pytest.mark.slow
def test_the_three_stages_train_one_behind_another(run, sets, tmp_path):
    before = None
    for name in ROWS:
        settings = [f"experiment=llama_vid_{name}", *SMALL, *QUICK, f"data.root={sets}",
                    f"hydra.run.dir={name}", "trainer.log_every_n_steps=1"]  # fmt: skip
        if name != "long":
            settings.append("data.reader.held_out=0.2")
        if before is not None:
            settings.append(f"init.weights={tmp_path}/{before}-model/model.safetensors")
        assert run(train, *settings) == 0
        last = f"checkpoint={tmp_path}/{name}/checkpoints/last.ckpt"
        assert run(export, last, f"to={tmp_path}/{name}-model") == 0
        (path,) = (tmp_path / name).rglob("metrics.csv")
        with path.open() as file:
            losses = [float(r["train/loss"]) for r in csv.DictReader(file) if r["train/loss"]]
        assert losses
        assert np.isfinite(losses).all()
        before = name
    stages = [load_file(tmp_path / f"{name}-model/model.safetensors") for name in ROWS]
    for part, by_third in (("temporal.key.weight", False), ("projector.content.0.weight", True)):
        first, second, third = (stage.get(f"vision.{part}") for stage in stages)
        assert not torch.equal(first, second)
        assert (third is not None and not torch.equal(second, third)) == by_third
