import importlib.util

import numpy as np
import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mmavlm.core.errors import ConfigError
from mmavlm.movies.frames import FrameSpec, ImageGenerator
from mmavlm.movies.generators import diffusion
from mmavlm.movies.generators.diffusion import DiffusionImages
from mmavlm.movies.vocabulary import Style

FRAMES = [FrameSpec(location=place, actors=()) for place in ("museum", "garden", "school")]


def save_pipeline(folder):
    """A Stable Diffusion of a few thousand random weights."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{x}</w>" for x in letters)]
    tokenizer = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(8, 8), norm_num_groups=4, attention_head_dim=2, cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet,
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = save_pipeline(tmp_path_factory.mktemp("pipeline") / "small")
    return DiffusionImages(folder, size=16, steps=2, batch=2)


def test_frames_are_drawn_each_from_its_own_seed_whatever_the_batch(images):
    style = images.prepare_style(Style(keyword="comic", tone=["bold"]), 0)
    three = list(images.render(FRAMES, style, [1, 2, 3]))
    assert [(picture.shape, picture.dtype) for picture in three] == [((16, 16, 3), np.uint8)] * 3
    (second,) = images.render(FRAMES[1:2], style, [2])
    assert np.abs(three[1].astype(int) - second).max() <= 1  # rounding of another batch
    (other,) = images.render(FRAMES[1:2], style, [9])
    assert not np.array_equal(second, other)
    assert isinstance(images, ImageGenerator)


def test_the_style_stands_before_every_prompt(images):
    style = images.prepare_style(Style(keyword="comic", tone=["bold", "bright"]), 0)
    assert style.words == "comic style, bold, bright"


def test_without_the_package_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(diffusion, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'mmavlm\[diffusers\]'"):
        DiffusionImages(str(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs diffusers")
def test_a_folder_without_a_pipeline_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no model_index\.json"):
        DiffusionImages(str(tmp_path))
