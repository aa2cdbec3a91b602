import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipQFormerConfig,
    InstructBlipQFormerModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
)

from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.weights.pretrained import PretrainedFolder, as_dtype, instructblip_parts, load_strict

LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
LAYERS |= {"num_attention_heads": 4}
QFORMER = LAYERS | {"vocab_size": 100, "encoder_hidden_size": 32}
TEXTS = {
    "llama": LlamaConfig(**LAYERS, vocab_size=100),
    "t5": T5Config(vocab_size=100, d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4),
}


def build(kind="llama"):
    torch.manual_seed(0)
    config = InstructBlipConfig(
        vision_config=LAYERS | {"image_size": 28, "patch_size": 14},
        qformer_config=QFORMER,
        text_config=TEXTS[kind].to_dict(),
        num_query_tokens=4,
    )
    model = InstructBlipForConditionalGeneration(config).eval()
    nn.init.normal_(model.query_tokens)
    return model


@pytest.fixture(scope="module", params=["llama", "t5"])
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model = build(request.param)
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture
def llama(tmp_path):
    model = LlamaForCausalLM(TEXTS["llama"])
    model.save_pretrained(tmp_path)
    return model, tmp_path


def as_bin(folder):
    """The same weights in the older format."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def same(found, expected):
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_part_is_read_by_its_prefix_without_it(saved):
    model, folder = saved
    found = PretrainedFolder(folder).state_dict("vision_model.")
    assert same(found, dict(model.vision_model.state_dict()))


def test_all_weights_are_read_without_a_prefix(llama):
    model, folder = llama
    assert same(PretrainedFolder(folder).state_dict(), dict(model.state_dict()))


def test_the_parts_of_an_instructblip_fit_the_modules_they_belong_to(saved):
    model, folder = saved
    parts = instructblip_parts(PretrainedFolder(folder))
    qformer = InstructBlipQFormerModel(InstructBlipQFormerConfig(**QFORMER)).eval()
    load_strict(qformer, parts.qformer, "parts")
    assert same(dict(qformer.state_dict()), dict(model.qformer.state_dict()))
    assert torch.equal(parts.query_tokens, model.query_tokens)
    assert same(parts.projection, dict(model.language_projection.state_dict()))
    assert same(parts.norm, dict(model.vision_model.post_layernorm.state_dict()))


@pytest.mark.parametrize("as_bins", [False, True])
def test_shards_are_read_as_the_whole(as_bins, tmp_path):
    model = build()
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    if as_bins:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        for file in tmp_path.glob("*.safetensors"):
            torch.save(load_file(file), file.with_suffix(".bin"))
            file.unlink()
        shards = index["weight_map"]
        index["weight_map"] = {k: v.replace("safetensors", "bin") for k, v in shards.items()}
        (tmp_path / "model.safetensors.index.json").unlink()
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert len(list(tmp_path.glob("model-*"))) > 1
    found = PretrainedFolder(tmp_path).state_dict("qformer.")
    assert same(found, dict(model.qformer.state_dict()))


def test_only_the_shards_that_hold_the_part_are_opened(tmp_path):
    build().save_pretrained(tmp_path, max_shard_size="100KB")
    shards = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {file for key, file in shards.items() if key.startswith("language_projection.")}
    for file in set(shards.values()) - needed:
        (tmp_path / file).unlink()
    folder = PretrainedFolder(tmp_path)
    assert folder.state_dict("language_projection.").keys() == {"weight", "bias"}
    with pytest.raises(CheckpointError, match="is missing, though an index of shards names it"):
        folder.state_dict("vision_model.")


def test_the_older_format_is_read_too(llama):
    model, folder = llama
    as_bin(folder)
    assert same(PretrainedFolder(folder).state_dict("model."), dict(model.model.state_dict()))


def test_a_leading_model_in_all_names_is_passed_over(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({f"model.{k}": v for k, v in state.items()}, tmp_path / "model.safetensors")
    parts = instructblip_parts(PretrainedFolder(tmp_path))
    assert same(parts.qformer, dict(model.qformer.state_dict()))


def test_buffers_that_older_versions_saved_are_left_out(tmp_path):
    build().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["qformer.embeddings.position_ids"] = torch.arange(512)[None]
    save_file(state, tmp_path / "model.safetensors")
    parts = instructblip_parts(PretrainedFolder(tmp_path))
    assert "embeddings.position_ids" not in parts.qformer


def test_floats_are_cast_and_integers_are_not(tmp_path):
    save_file({"a": torch.ones(2), "n": torch.arange(2)}, tmp_path / "model.safetensors")
    state = PretrainedFolder(tmp_path).state_dict(dtype=torch.float16)
    assert (state["a"].dtype, state["n"].dtype) == (torch.float16, torch.int64)


def test_an_unknown_prefix_is_refused_with_the_known_ones(llama):
    with pytest.raises(CheckpointError, match=r"no weights named qformer.…; .*lm_head, model"):
        PretrainedFolder(llama[1]).state_dict("qformer.")


def test_another_kind_of_model_is_refused(llama):
    with pytest.raises(CheckpointError, match="holds a model of type 'llama', expected 'instruct"):
        instructblip_parts(PretrainedFolder(llama[1]))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"the folder .*nowhere does not exist; give a fold"):
        PretrainedFolder(tmp_path / "nowhere")


def test_a_folder_without_config_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no usable config.json .* save_pretrained"):
        _ = PretrainedFolder(tmp_path).config


def test_a_folder_without_weights_is_named(llama):
    (llama[1] / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no weights; expected model.safetensors or"):
        PretrainedFolder(llama[1]).state_dict()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_damaged_file_is_named(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x00" * 64)
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read .* fetch it anew"):
        PretrainedFolder(tmp_path).state_dict()


@pytest.mark.parametrize("text", ["{", "{}"])
def test_a_damaged_index_of_shards_is_named(text, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"model.safetensors.index.json cannot be read"):
        PretrainedFolder(tmp_path).state_dict()


class Trap:
    def __reduce__(self):
        return print, ("code in a checkpoint ran",)


def test_code_in_a_checkpoint_never_runs(tmp_path, capsys):
    torch.save({"a": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin cannot be read .*more than wei"):
        PretrainedFolder(tmp_path).state_dict()
    assert "ran" not in capsys.readouterr().out


def test_a_hub_name_while_offline_is_refused_with_the_remedies(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"some/model is no local folder.*unset HF_HUB_OFFL"):
        _ = PretrainedFolder("some/model").config


def test_what_lies_in_the_hubs_cache_is_taken_while_offline(tmp_path, monkeypatch):
    commit, model = "0" * 40, tmp_path / "models--some--model"
    build().save_pretrained(model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = PretrainedFolder("some/model")
    assert folder.config.model_type == "instructblip"
    assert folder.state_dict("query_tokens")[""].shape == (1, 4, 32)


def test_from_the_hub_come_small_files_and_then_the_shards_asked_for(tmp_path, monkeypatch):
    hub, cache = tmp_path / "hub", tmp_path / "cache"
    build().save_pretrained(hub, max_shard_size="100KB")
    cache.mkdir()
    fetched = []

    def copy(name, *, revision, allow_patterns):
        assert (name, revision) == ("some/model", None)
        for pattern in allow_patterns:
            for file in hub.glob(pattern):
                fetched.append(file.name)
                shutil.copy(file, cache)
        return str(cache)

    monkeypatch.setattr("mmavlm.weights.pretrained.snapshot_download", copy)
    folder = PretrainedFolder("some/model")
    assert folder.config.model_type == "instructblip"
    assert not any(name.endswith(".safetensors") for name in fetched)
    assert folder.state_dict("query_tokens")[""].shape == (1, 4, 32)
    assert len([name for name in fetched if name.endswith(".safetensors")]) == 1
    weights = {file.name for file in hub.glob("*.safetensors")}
    assert weights <= {file.name for file in Path(folder.with_weights()).iterdir()}


def test_strict_loading_takes_what_fits():
    module, other = nn.Linear(2, 3), nn.Linear(2, 3)
    load_strict(module, other.state_dict(), "other")
    assert torch.equal(module.weight, other.weight)


def test_strict_loading_may_take_the_tensors_themselves():
    with torch.device("meta"):
        module = nn.Linear(2, 3)
    state = nn.Linear(2, 3).state_dict()
    load_strict(module, state, "other", assign=True)
    assert module.weight.data_ptr() == state["weight"].data_ptr()


def test_strict_loading_lists_all_that_differs_and_changes_nothing():
    module = nn.Linear(2, 3)
    before = module.weight.clone()
    state = {"weight": torch.zeros(9, 2)} | {f"extra{i:02}": torch.zeros(1) for i in range(12)}
    with pytest.raises(CheckpointError) as error:
        load_strict(module, state, "there")
    lines = str(error.value).splitlines()
    assert lines[0] == "the weights in there do not fit Linear:"
    assert lines[1] == "  1 missing: bias"
    assert lines[2].startswith("  12 unexpected: extra00, extra01")
    assert lines[2].endswith("extra09, …")
    assert lines[3] == "  1 of another shape: weight (9, 2) instead of (3, 2)"
    assert torch.equal(module.weight, before)


def test_dtypes_are_named_as_torch_names_them():
    assert as_dtype("bfloat16", "llm.dtype") is torch.bfloat16
    on_gpu = torch.cuda.is_available()
    half = {torch.bfloat16, torch.float16}
    assert as_dtype("auto", "llm.dtype") in (half if on_gpu else {torch.float32})
    with pytest.raises(ConfigError, match=r"llm.dtype is 'fp8'; choose one of auto, float32"):
        as_dtype("fp8", "llm.dtype")
