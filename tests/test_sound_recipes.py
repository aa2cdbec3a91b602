"""The recipes of Video-LLaMA's audio branch, and the experiment that needs both senses."""

import json
import wave

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from mmavlm import train
from mmavlm.weights.checkpoint import read_checkpoint
from mmavlm.weights.trust import OF_THE_MODEL, Fence
from support import SMALL, composed

# Peak, least and first rate, warm-up, epochs, batch on a GPU, longest answer.
ROWS = {
    "pretrain": (1e-4, 8e-5, 1e-6, 5000, 5, 32, 32),
    "instruct": (3e-5, 1e-5, 1e-6, 400, 3, 4, 512),
}
TINY = ["sound_encoder=tiny", "stage.num_beams=1", "stage.num_answers=1", "stage.max_new_tokens=2"]


def recipe(name, *overrides):
    return composed(f"experiment=video_llama_audio_{name}", "data.root=/data", *overrides)


@pytest.mark.parametrize("name", ROWS)
def test_a_recipe_has_the_published_row(name):
    config = recipe(name)
    optimizer = config.optimizer
    assert ROWS[name] == (
        *(optimizer.lr, optimizer.min_lr, optimizer.warmup_lr, optimizer.warmup_steps),
        *(config.trainer.max_epochs, config.data.batch_size, config.llm.max_answer_tokens),
    )
    assert (config.clips.clips, config.clips.clip_s, config.clips.rate_hz) == (8, 2.0, 16_000)
    assert (config.sound.temporal.num_query_tokens, config.vision.position_init) == (8, "none")


@pytest.mark.parametrize("name", ROWS)
def test_what_a_checkpoint_of_a_recipe_says_of_its_model_is_admitted(name):
    config = OmegaConf.to_container(recipe(name), resolve=True)
    fence = Fence("a checkpoint")
    for group in (*OF_THE_MODEL, "optimizer", "stage"):
        assert list(fence.objections(group, config.get(group))) == []


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Tones high and low, with what they are called, and talks about them."""
    root = tmp_path_factory.mktemp("sounds")
    rows, talks = [], []
    for number, (word, rate_hz) in enumerate([("high", 2000), ("low", 200)] * 3):
        path = root / f"{number}.wav"
        tone = np.sin(2 * np.pi * rate_hz * np.arange(16_000) / 8000)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes((tone * 20_000).astype("<i2").tobytes())
        rows.append({"sound": path.name, "caption": f"a {word} tone"})
        talks.append(
            {
                "media": [{"id": str(number), "source": path.name, "kind": "sound"}],
                "turns": [
                    {"role": "user", "parts": [{"medium": 0}, "what is it?"]},
                    {"role": "assistant", "parts": ["a tone"], "learned": True},
                    {"role": "user", "parts": ["which?"]},
                    {"role": "assistant", "parts": [word], "learned": True},
                ],
            }
        )
    (root / "sounds").mkdir()
    for folder, lines in ((root / "sounds", rows), (root, talks)):
        for split in ("train", "val", "test"):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / f"{split}.jsonl").write_text(text)
    return root


@pytest.mark.slow
def test_both_stages_train_on_sounds_alone_and_what_sees_stays(run, sounds, tmp_path):
    common = [*SMALL, *TINY, f"data.root={sounds}", "llm.trainable=false"]
    small = ["data.batch_size=2", "optimizer.warmup_steps=0"]
    assert run(train, "experiment=video_llama_audio_pretrain", *common, *small, "seed=1",
               "hydra.run.dir=first", "test=true") == 0  # fmt: skip
    first = read_checkpoint(tmp_path / "first/checkpoints/last.ckpt")["state_dict"]
    assert run(train, "experiment=video_llama_audio_instruct", *common, *small,
               "data.epoch_items=12", "init.checkpoint=first/checkpoints/last.ckpt",
               "hydra.run.dir=second") == 0  # fmt: skip
    second = read_checkpoint(tmp_path / "second/checkpoints/last.ckpt")["state_dict"]
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert {name.split(".")[1] for name in moved} == {"sound"}


@pytest.mark.slow
@pytest.mark.parametrize("show", ["[sound,film]", "[sound]"])
def test_films_are_heard_from_their_own_track(run, tmp_path, show):
    small = ["prepare.clips=24", "prepare.workers=0",
             "data.num_frames=2", "data.batch_size=4", "trainer.max_epochs=1", "trainer=cpu",
             "trainer.check_val_every_n_epoch=1", "callbacks.progress=null"]  # fmt: skip
    assert run(train, "experiment=demo_sound", *small, f"data.reader.show={show}",
               f"paths.data={tmp_path}/data", "hydra.run.dir=run") == 0  # fmt: skip
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert {"test/heard/rank_top1", "test/seen/rank_top1"} <= metrics.keys()
    rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").open()]
    assert {row["task"] for row in rows} == {"heard", "seen"}
