"""LLaVA-OneVision's vision tower and projector, read from its folder."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaOnevisionConfig

import small_llava_onevision
from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.core.interfaces import PatchGrid, VisualEncoder
from mmavlm.model.encoders import SiglipEncoder
from mmavlm.run import build_backbone
from support import composed


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onevision")
    return small_llava_onevision.save(folder), folder


@pytest.fixture
def frames():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, 56, 56), dtype=torch.uint8, generator=generator)


def model_of(folder, *overrides):
    return build_backbone(
        composed(*small_llava_onevision.overrides(folder), "alignment=none", *overrides)
    )


def hidden(model, frames):
    """What the model of transformers gives to its projector."""
    seen = model.model.vision_tower(frames / 127.5 - 1, output_hidden_states=True)
    return seen.hidden_states[-1]


@torch.no_grad()
def test_it_gives_what_the_entire_model_projects(saved, frames):
    encoder = SiglipEncoder(str(saved[1]), dtype="float32")
    assert isinstance(encoder, VisualEncoder)
    assert (encoder.patch_grid, encoder.width) == (PatchGrid(0, 7, 7), 48)
    torch.testing.assert_close(encoder(frames), hidden(saved[0], frames), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_projector_is_that_of_the_folder(saved, frames):
    whole, folder = saved
    model = model_of(folder, "temporal=every_frame", "temporal.stride=1")
    encoded = model.vision.encode(frames[None])
    watched = model.vision.watch(encoded, torch.ones(1, 3).bool(), [""])
    tokens = model.video_tokens(model.vision.remember(watched))
    expected = whole.model.multi_modal_projector(hidden(whole, frames)).flatten(0, 1)
    torch.testing.assert_close(tokens[0], expected, rtol=1e-4, atol=1e-5)


def test_the_language_model_is_that_of_the_folder(saved):
    whole, folder = saved
    own = model_of(folder, "temporal=every_frame").llm.model.state_dict()
    given = whole.model.language_model.state_dict()
    assert all(torch.equal(own[f"model.{name}"], tensor) for name, tensor in given.items())
    assert torch.equal(own["lm_head.weight"], whole.lm_head.weight)


def test_names_of_older_files_are_understood(saved, tmp_path):
    state = load_file(saved[1] / "model.safetensors")
    older = {name.replace("vision_tower.", "vision_tower.vision_model."): tensor
             for name, tensor in state.items()}  # fmt: skip
    save_file(older, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((saved[1] / "config.json").read_text())
    one, other = (SiglipEncoder(str(f), dtype="float32") for f in (saved[1], tmp_path))
    assert one.fingerprint == other.fingerprint


def test_a_projector_needs_patches(saved):
    with pytest.raises(ConfigError, match="projector reads patches, and MemoryQFormer gives"):
        model_of(saved[1], "temporal=memory_qformer")


def test_another_kind_of_model_is_refused(saved, tmp_path):
    saved[0].model.language_model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="of type 'qwen2', expected 'llava_onevision'"):
        SiglipEncoder(str(tmp_path))


@pytest.mark.parametrize("given", [{}, {"pretrained": "x", "config": {}}])
def test_exactly_one_source_of_weights_is_wanted(given):
    with pytest.raises(ConfigError, match="takes either a pretrained folder or hub name, or a con"):
        SiglipEncoder(**given)


def test_the_full_size_is_that_of_the_paper():
    with torch.device("meta"):
        encoder = SiglipEncoder(config=LlavaOnevisionConfig().vision_config.to_dict())
    assert (encoder.image_size, encoder.num_tokens, encoder.width) == (384, 27 * 27, 1152)
    assert len(encoder.vision_model.encoder.layers) == 26  # of SigLIP's 27
