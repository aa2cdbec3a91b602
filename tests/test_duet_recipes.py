"""The recipes of MMDuet are its own, at full width what the paper trains, and they train."""

import json

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from transformers import LlavaOnevisionConfig, Qwen2Config, Qwen2ForCausalLM

import small_instructblip
import small_llava_onevision
from mmavlm import evaluate, train
from mmavlm.metrics.duet.files import read_watched
from mmavlm.model.encoders import SiglipEncoder
from mmavlm.model.llm.adapt import LoraSettings, add_lora
from mmavlm.model.llm.prompted import PromptedLanguageModel
from mmavlm.model.text import load_tokenizer
from mmavlm.movies.duet_set import DuetSettings, make_duet_set
from mmavlm.weights.checkpoint import read_checkpoint
from mmavlm.weights.trust import OF_THE_MODEL, Fence
from support import composed

RECIPES = ("published", "ours", "ours_memory")
# Sets of training: frames a second, items.
SETS = {
    "shot2story": (2, 36_949),
    "magqa": (2, 36_834),
    "didemo": (2, 24_381),
    "hirest": (0.333, 459),
    "queryd": (0.5, 5_392),
    "coin": (0.5, 4_574),
}
# Tests: frames a second, and how many at most.
TESTS = {
    "charades_sta": (2, 400),
    "qvhighlights": (1, 400),
    "youcook2": (0.5, 200),
    "magqa": (2, 400),
}
QWEN2_7B = Qwen2Config(
    vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28,
    num_attention_heads=28, num_key_value_heads=4,
)  # fmt: skip


def recipe(name, *overrides):
    return composed(f"experiment=duet_{name}", "data.root=/data", *overrides)


def plain(config):
    return OmegaConf.to_container(config, resolve=False)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_published_row(name):
    config = recipe(name)
    optimizer, trainer = config.optimizer, config.trainer
    assert (optimizer.lr, optimizer.weight_decay, optimizer.min_lr) == (2e-5, 0, None)
    batch = config.data.batch_size * trainer.accumulate_grad_batches * 8
    assert (batch, trainer.max_epochs) == (128, 1)
    steps = sum(items for _, items in SETS.values()) / batch
    assert optimizer.warmup_steps == pytest.approx(0.05 * steps, abs=1)
    assert {n: part.sample_fps for n, part in config.data.sets.items()} == {
        n: fps for n, (fps, _) in SETS.items()
    }
    assert {part.num_frames for part in config.data.sets.values()} == {120}
    held_out = {name: part.reader.held_out for name, part in config.data.sets.items()}
    assert all(held_out.values())
    assert held_out["shot2story"] == held_out["magqa"]  # of the same films, the same ones
    assert config.llm.gradient_checkpointing


def test_ours_differs_from_the_published_in_what_it_says():
    published, ours = (plain(recipe(name)) for name in ("published", "ours"))
    changed = {
        "temporal.pool": ("bilinear", "area"),
        "stage.balanced": (False, True),
        "stage.calibrate": (False, True),
        "data.sets.shot2story.reader.rest": (False, True),
        "data.sets.coin.reader.rest": (False, True),
        "data.sets.magqa.reader.rest": (False, True),
        "data.sets.magqa.reader.lead_in": (20, None),
    }
    found = dict(differences(published, ours))
    assert found == changed
    awaited = {part.reader.get("awaited_from", 0.5) for part in recipe("ours").data.sets.values()}
    assert awaited == {0.5}


def differences(one, other, at=""):
    for key in {**one, **other}:
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, f"{at}{key}.")
        elif a != b:
            yield f"{at}{key}", (a, b)


@pytest.mark.parametrize("name", TESTS)
def test_a_test_sees_as_many_frames_as_the_published_one(name):
    data = recipe(name).data
    assert (data.sample_fps, data.num_frames) == TESTS[name]


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_checkpoint_of_a_recipe_says_of_its_model_is_admitted(name):
    config = OmegaConf.to_container(recipe(name), resolve=True)
    fence = Fence("a checkpoint")
    for group in (*OF_THE_MODEL, "optimizer", "stage", "heads"):
        assert list(fence.objections(group, config.get(group))) == []


def test_at_full_width_it_trains_as_many_parameters_as_the_paper():
    config = recipe("published")
    with torch.device("meta"):
        model = Qwen2ForCausalLM(QWEN2_7B).requires_grad_(False)
        add_lora(model, LoraSettings(**config.llm.lora))
        llm = PromptedLanguageModel(model, load_tokenizer(None))
        encoder = SiglipEncoder(config=LlavaOnevisionConfig().vision_config.to_dict())
        vision = instantiate(config.backbone.vision, encoder=encoder)
        backbone = instantiate(config.backbone, vision=vision, llm=llm)
        patches = torch.empty(1, 2 * 729, 1152)
        assert backbone.vision.projector(patches).shape == (1, 2 * 49, 3584)
    counted = {"lora": 0, "projector": 0, "heads": 0}
    for name, weight in backbone.named_parameters():
        if weight.requires_grad:
            (part,) = [part for part in counted if part in name]
            counted[part] += weight.numel()
    assert counted == {"lora": 40_370_176, "projector": 16_980_992, "heads": 2 * 2 * 3584}
    assert sum(p.numel() for p in backbone.llm.parameters()) > 7e9


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Synthetic films with annotations as those of all sets, of training and of tests."""
    root = make_duet_set(tmp_path_factory.mktemp("sets"), DuetSettings(films=10, size=32))
    kinds = {split: {kind: json.loads((root / f"{kind}/{split}.json").read_text())
                     for kind in ("captions", "questions", "searches")}
             for split in ("train", "test")}  # fmt: skip
    files = {
        "shot2story/annotations/dvc_train-human_anno-0.25_0.5_earlier.json": "captions",
        "shot2story/annotations/magqa_train-0.25_0.5-earlier.json": "questions",
        "didemo/annotations/train.json": "searches",
        "hirest_grounding/annotations/train.json": "searches",
        "queryd/annotations/train.json": "searches",
        "coin/annotations/train-0.25_0.5_earlier-120s_240s.json": "captions",
    }
    for path, kind in files.items():
        write(root / path, json.dumps(kinds["train"][kind]))
    write(root / "shot2story/annotations/magqa_test.json", json.dumps(kinds["test"]["questions"]))
    for split, known in kinds.items():
        found = [(row["video_uid"].removesuffix(".mp4"), *row["timestamps"][0], row["query"])
                 for row in known["searches"] if row["timestamps"]]  # fmt: skip
        lines = [f"{film} {a} {b}##{query}\n" for film, a, b, query in found]
        write(root / f"charades/charades_sta_{split}.txt", "".join(lines))
        rows = [{"qid": n, "vid": film, "query": query, "duration": 20,
                 "relevant_windows": [[a, b]], "relevant_clip_ids": [int(a / 2)],
                 "saliency_scores": [[4, 3, 2]]}
                for n, (film, a, b, query) in enumerate(found)]  # fmt: skip
        name = {"train": "train", "test": "val"}[split]
        path = root / f"qvhighlights/highlight_{name}_release.jsonl"
        write(path, "\n".join(map(json.dumps, rows)))
    steps = {
        film.removesuffix(".mp4"): {
            "subset": {"train": "training", "test": "validation"}[split],
            "annotations": [{"segment": c["timespan"], "sentence": c["text"]} for c in one["0"]],
        }
        for split, known in kinds.items()
        for film, one in known["captions"].items()
    }
    path = root / "youcook2/annotation/youcookii_annotations_trainval.json"
    write(path, json.dumps({"database": steps}))
    for folder in {*(path.split("/")[0] for path in files), "charades", "qvhighlights", "youcook2"}:
        (root / folder / "videos").symlink_to(root / "videos")
    return root


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


QUICK = [
    "trainer=cpu", "data.num_workers=0", "callbacks.progress=null", "data.num_frames=6",
    "trainer.log_every_n_steps=1", "optimizer.warmup_steps=0", "data.epoch_items=12",
    *(f"data.sets.{name}.reader.held_out=0.2" for name in SETS),
    *(f"data.sets.{name}.sample_fps=0.5" for name in SETS),
]  # fmt: skip


def small(name, folder):
    """A small model in a folder, and the settings for it."""
    if name != "ours_memory":
        small_llava_onevision.save(folder)
        return small_llava_onevision.overrides(folder)
    small_instructblip.save(folder)
    return [*small_instructblip.overrides(folder), f"llm.pretrained={folder}",
            "llm.chat_template=none", "stage.frames_a_film=2"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_from_a_saved_model_and_every_test_watches_with_it(
    run, sets, tmp_path, name
):
    pytest.importorskip("peft", reason="needs the lora extra")
    settings = [f"experiment=duet_{name}", *small(name, tmp_path / "model"), *QUICK]
    assert run(train, *settings, f"data.root={sets}", "hydra.run.dir=run") == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert 0 <= metrics["val/ap"] <= 1
    watched = read_watched(tmp_path / "run/watched_val.jsonl")
    assert {film.question_id.split("/")[0] for film in watched} == set(SETS)
    checkpoint = tmp_path / "run/checkpoints/best.ckpt"
    saved = read_checkpoint(checkpoint)
    assert saved["global_step"] == 1
    state = saved["state_dict"]
    parts = {"lora_A", "lora_B", "vision.projector", "heads."}
    for part in parts:
        assert [weight for key, weight in state.items() if part in key and weight.any()]
    learned = [key for key in state if any(part in key for part in parts)]
    assert name == "ours_memory" or len(learned) == len(state)
    ways = {test: [f"experiment=duet_{test}"] for test in TESTS}
    ways["by_data"] = ["data=qvhighlights"]
    ways["test_alone"] = [*ways["charades_sta"], "+trainer.limit_val_batches=0"]
    for folder, way in ways.items():
        evaluated = [f"checkpoint={checkpoint}", *way, "data.num_frames=6",
                     f"data.root={sets}", "data.reader.held_out=0.2"]  # fmt: skip
        assert run(evaluate, *evaluated, f"hydra.run.dir={folder}") == 0
        assert read_watched(tmp_path / f"{folder}/watched_test.jsonl")
        validated = (tmp_path / f"{folder}/watched_val.jsonl").is_file()
        assert validated == (folder != "test_alone")
