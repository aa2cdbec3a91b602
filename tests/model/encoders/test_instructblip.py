import blip
import pytest
import torch
import torch.nn.functional as F

from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.core.interfaces import VisualEncoder
from mmavlm.model.encoders import InstructBlipEncoder

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("instructblip")
    model = blip.build()
    model.save_pretrained(folder)
    return model, str(folder)


@pytest.fixture(scope="module")
def encoder(saved):
    return InstructBlipEncoder(saved[1], dtype="float32")


@pytest.fixture
def frames():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, 28, 28), dtype=torch.uint8, generator=generator)


def test_it_is_a_visual_encoder(encoder):
    assert isinstance(encoder, VisualEncoder)
    assert (encoder.image_size, encoder.num_tokens, encoder.width) == (28, 5, blip.WIDTH)


@torch.no_grad()
def test_tokens_and_norm_make_up_what_the_whole_model_sees(saved, encoder, frames):
    norm = encoder.norm_state()
    found = F.layer_norm(encoder(frames), (blip.WIDTH,), norm["weight"], norm["bias"], eps=1e-6)
    pixels = (frames / 255 - MEAN) / STD
    expected = saved[0].vision_model(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_tokens_come_before_the_norm(encoder, frames):
    spread = encoder(frames).var(dim=-1)
    assert (spread - 1).abs().max() > 0.1


def test_weights_take_the_dtype_asked_for(saved, frames):
    encoder = InstructBlipEncoder(saved[1], dtype="bfloat16")
    assert encoder.dtype == encoder(frames).dtype == torch.bfloat16
    assert encoder.norm_state()["weight"].dtype == torch.float32


def test_dtype_is_part_of_the_fingerprint(saved, encoder):
    other = InstructBlipEncoder(saved[1], dtype="bfloat16")
    assert InstructBlipEncoder(saved[1], dtype="float32").fingerprint == encoder.fingerprint
    assert other.fingerprint != encoder.fingerprint


def test_a_config_alone_gives_random_weights(frames):
    encoder = InstructBlipEncoder(config=blip.VISION, dtype="float32")
    assert encoder(frames).shape == (5, 5, blip.WIDTH)
    with pytest.raises(CheckpointError, match=r"random weights .* give encoder.pretrained"):
        encoder.norm_state()


def test_the_full_size_is_that_of_the_paper():
    with torch.device("meta"):
        encoder = InstructBlipEncoder(config={})
    assert (encoder.image_size, encoder.num_tokens, encoder.width) == (224, 257, 1408)
    assert len(encoder.vision_model.encoder.layers) == 39


@pytest.mark.parametrize("given", [{}, {"pretrained": "x", "config": {}}])
def test_exactly_one_source_of_weights_is_wanted(given):
    with pytest.raises(ConfigError, match="takes either a pretrained folder or hub name, or a con"):
        InstructBlipEncoder(**given)


def test_another_kind_of_model_is_refused(saved, tmp_path):
    saved[0].language_model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds a model of type 'llama', expected 'instruct"):
        InstructBlipEncoder(str(tmp_path))


def test_an_unknown_dtype_is_refused(saved):
    with pytest.raises(ConfigError, match=r"encoder.dtype is 'half'; choose one of auto, float32"):
        InstructBlipEncoder(saved[1], dtype="half")
