"""A small BLIP-2 folder with every key of a large one: ViT, Q-Former and queries load by name."""

import json

import pytest
import torch
from hydra.errors import InstantiationException
from safetensors.torch import load_file, save_file
from transformers import Blip2ForConditionalGeneration, Blip2Model

import small_blip2
import small_instructblip
from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.core.generation import Generation
from mmavlm.run import build_backbone
from mmavlm.weights import pretrained
from mmavlm.weights.untrained import random_parts
from support import composed, random_batch

SHARD = "20KB"
NEVER_READ = ("language_model.", "language_projection.")
AS_RAISED = (CheckpointError, InstantiationException)  # Hydra wraps what a part raises


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_blip2.save(tmp_path_factory.mktemp("blip2"), max_shard_size=SHARD)


@pytest.fixture(scope="module")
def theirs(folder):
    return Blip2ForConditionalGeneration.from_pretrained(folder).eval()


def build(folder, *overrides):
    return build_backbone(composed(*small_blip2.overrides(folder), *overrides))


def test_each_frame_is_seen_as_blip2s_own_q_former_sees_it(folder, theirs):
    model = build(folder, "vision.norm_eps=1e-6").eval()
    batch = random_batch((3, 3))
    encoder = model.vision.encoder
    pixels = (batch.frames.flatten(0, 1).float() - encoder.mean) / encoder.std
    with torch.no_grad():
        watched = model.watch(batch)
        ours, _ = model.vision.temporal.see(watched.frame_tokens, watched.guide, ())
        images = theirs.vision_model(pixels).last_hidden_state
        queries = theirs.query_tokens.expand(len(images), -1, -1)
        expected = theirs.qformer(query_embeds=queries, encoder_hidden_states=images)
    found = ours.flatten(0, 1)
    torch.testing.assert_close(found, expected.last_hidden_state, atol=1e-5, rtol=1e-5)


def test_every_weight_that_is_taken_is_the_folders_own_bit_by_bit(folder, theirs):
    model = build(folder)
    taken = model.state_dict()
    starts = {
        "vision_model.post_layernorm.": "vision.norm.",
        "vision_model.": "vision.encoder.vision_model.",
        "qformer.": "vision.temporal.image_qformer.",
        "query_tokens": "vision.temporal.image_queries",
    }
    same = 0
    for name, tensor in theirs.state_dict().items():
        start = next((start for start in starts if name.startswith(start)), None)
        if start is not None:
            assert torch.equal(taken[starts[start] + name.removeprefix(start)], tensor), name
            same += 1
    fed = ("vision.encoder.vision_model.", "vision.norm.", "vision.temporal.image_")
    assert same == sum(name.startswith(fed) for name in taken)


def test_what_belongs_to_its_language_model_is_never_read(folder, monkeypatch):
    read = []

    def counted(path, names):
        read.extend(names)
        return given(path, names)

    given = pretrained._read
    monkeypatch.setattr(pretrained, "_read", counted)
    build(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 3
    of_llm = {name for name in index if name.startswith(NEVER_READ)}
    assert of_llm
    assert set(read) == index.keys() - of_llm


def test_shards_that_hold_its_language_model_alone_need_not_be_there(folder, tmp_path):
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {file for name, file in index.items() if not name.startswith(NEVER_READ)}
    assert needed < set(index.values())
    for file in folder.iterdir():
        if file.name in needed or file.suffix == ".json":
            (tmp_path / file.name).symlink_to(file)
    build(tmp_path, f"llm.pretrained={folder}/llama")


def test_a_folder_of_blip2_without_a_head_serves_as_well(theirs, folder, tmp_path):
    model = Blip2Model(theirs.config)
    model.load_state_dict(theirs.state_dict(), strict=False)
    model.save_pretrained(tmp_path)
    of_head = build(folder).state_dict()
    for name, tensor in build(tmp_path, f"llm.pretrained={folder}/llama").state_dict().items():
        if name.startswith(("vision.encoder.", "vision.norm.", "vision.temporal.image_")):
            assert torch.equal(of_head[name], tensor), name


@pytest.mark.parametrize(
    "name",
    [
        "qformer.encoder.layer.1.output_query.dense.bias",
        "qformer.layernorm.weight",
        "vision_model.post_layernorm.bias",
        "vision_model.encoder.layers.0.self_attn.qkv.bias",
    ],
)
def test_a_missing_key_is_named(folder, tmp_path, name):
    state = {}
    for shard in folder.glob("model-*.safetensors"):
        state |= load_file(shard)
    del state[name]
    (tmp_path / "config.json").symlink_to(folder / "config.json")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    end = name.split(".", 1)[1].removeprefix("post_layernorm.")
    with pytest.raises(AS_RAISED, match=rf"1 missing: .*{end}"):
        build(tmp_path, f"llm.pretrained={folder}/llama")


def test_another_number_of_queries_names_the_setting(folder):
    with pytest.raises(CheckpointError, match=r"query_tokens have shape .* set qformer_queries=4"):
        build(folder, "qformer_queries=5")


def test_a_q_former_of_the_other_kind_names_the_one_that_fits(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"names a BLIP-2.*choose temporal=video_qformer"):
        build(folder, "temporal=memory_qformer")
    other = small_instructblip.save(tmp_path)
    with pytest.raises(ConfigError, match=r"names an InstructBLIP.*choose temporal=memory_qformer"):
        build(other, "qformer.layers=2", f"llm.pretrained={folder}/llama")
    with pytest.raises(AS_RAISED, match=r"'llama', expected 'instructblip' or 'blip-2'"):
        build(folder / "llama", f"llm.pretrained={folder}/llama")


def test_what_it_leaves_to_training_is_named_as_random(folder):
    config = composed(*small_blip2.overrides(folder))
    assert random_parts(config, build_backbone(config)) == [
        "vision.temporal.time_table", "vision.temporal.time_queries",
        "vision.temporal.time_qformer", "vision.projector",
    ]  # fmt: skip


def test_a_whole_model_trains_and_answers(folder):
    model = build(folder, "temporal.train_image_qformer=false")
    batch = random_batch(targets=("comedy", "the movie"))
    model(batch)["text"].backward()
    assert model.vision.temporal.time_queries.grad.any()
    assert model.vision.temporal.image_queries.grad is None
    answers = model.eval().generate(batch, Generation(max_new_tokens=3))
    assert len(answers) == 2
