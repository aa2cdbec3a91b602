"""Files that hold some parts of a model: each part strictly, the others left as they are."""

import logging

import pytest
import torch
from safetensors.torch import save_file

import small_instructblip
from mmavlm.core.errors import CheckpointError
from mmavlm.run import build_backbone
from mmavlm.run.features import build_encoder, encoder_settings
from mmavlm.weights.weight_files import WeightFile, write_weights
from support import composed, tiny_backbone


def parts_of(model, *starts):
    return {n: t + 1 for n, t in model.state_dict().items() if n.startswith(starts)}


@pytest.fixture
def weights(tmp_path):
    def write(state):
        save_file(state, tmp_path / "a.safetensors")
        return tmp_path / "a.safetensors"

    return write


def test_parts_of_the_file_are_taken_and_the_others_kept(weights, caplog):
    caplog.set_level(logging.INFO)
    model = tiny_backbone()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = parts_of(model, "vision.temporal.", "vision.projector.")
    WeightFile(weights(state)).load(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state.get(name, before[name])), name
    assert (
        "a.safetensors: vision.temporal.query_tokens, vision.temporal.qformer, vision.projector"
        in caplog.text
    )
    assert "kept as they are: vision.encoder, vision.norm, vision.frame_positions" in caplog.text


def test_stage_one_takes_what_it_has_and_says_what_it_has_not(weights, caplog):
    caplog.set_level(logging.INFO)
    path = weights(parts_of(tiny_backbone(), "vision.temporal.", "vision.projector."))
    model = build_backbone(composed("stage=semantic_alignment", f"init.weights={path}"))
    assert torch.equal(
        model.vision.temporal.query_tokens, WeightFile(path).state()["vision.temporal.query_tokens"]
    )
    assert "not used: vision.projector" in caplog.text


def test_a_part_that_is_not_whole_changes_nothing(weights):
    model = tiny_backbone()
    state = parts_of(model, "vision.temporal.", "vision.projector.")
    del state["vision.projector.bias"]
    before = model.vision.temporal.query_tokens.clone()
    with pytest.raises(CheckpointError, match=r"1 missing: vision.projector.bias"):
        WeightFile(weights(state)).load(model)
    assert torch.equal(model.vision.temporal.query_tokens, before)


def test_adapters_alone_are_a_part_of_the_language_model(weights, tmp_path):
    folder = small_instructblip.save(tmp_path)
    model, other = (
        build_backbone(composed(*small_instructblip.overrides(folder), "llm.lora={rank: 2}"))
        for _ in range(2)
    )
    adapters = {n: torch.randn_like(t) for n, t in model.state_dict().items() if "lora_" in n}
    path = weights(adapters)
    WeightFile(path).load(other)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, adapters.get(name, tensor))
    adapters.popitem()
    with pytest.raises(CheckpointError, match=r"1 missing: llm.model.*lora_"):
        WeightFile(weights(adapters)).load(other)


def test_names_of_no_part_are_refused(weights):
    with pytest.raises(CheckpointError, match=r"1 unexpected: projektor.weight"):
        WeightFile(weights({"projektor.weight": torch.zeros(1)}))


def test_a_missing_and_a_damaged_file_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"weights .*gone.safetensors do not exist; give a"):
        WeightFile(tmp_path / "gone.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(CheckpointError, match=r"a.safetensors cannot be read .*safetensors file"):
        WeightFile(tmp_path / "a.safetensors")


def test_an_encoder_from_the_file_is_another_encoder_to_the_cache(weights, tmp_path):
    plain = composed()
    path = weights(parts_of(tiny_backbone(), "vision.encoder."))
    config = composed(f"init.weights={path}")
    assert build_encoder(config).fingerprint != build_encoder(plain).fingerprint
    assert build_backbone(config).vision.encoder.fingerprint == build_encoder(config).fingerprint
    assert encoder_settings(config) == {**encoder_settings(plain), "weights": str(path)}


def test_a_written_file_may_be_read_by_whom_any_new_file_may(tmp_path):
    write_weights({"vision.projector.bias": torch.zeros(2)}, tmp_path / "a.safetensors")
    (tmp_path / "plain").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("a.safetensors", "plain")]
    assert modes[0] == modes[1]
