from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from models import LLAMA, T5, save
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

from mmavlm.model.llm import HFLanguageModel, PromptedLanguageModel
from mmavlm.model.text import load_tokenizer

CONF = Path(__file__).parents[3] / "conf" / "llm"
LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
LAYERS |= {"num_attention_heads": 4}


def load(name):
    return OmegaConf.load(CONF / f"{name}.yaml")


def test_every_config_of_the_group_is_tried():
    assert {file.stem for file in CONF.glob("*.yaml")} == {"tiny", "causal", "vicuna", "flan_t5"}


def test_the_tiny_config_builds_as_it_is():
    assert type(instantiate(load("tiny"))) is PromptedLanguageModel


def test_the_causal_config_wants_a_model(tmp_path):
    config = load("causal")
    with pytest.raises(MissingMandatoryValue):
        _ = config.pretrained
    config.pretrained = save("gpt2", tmp_path)
    config.lora = {"rank": 2}
    llm = instantiate(config)
    assert type(llm) is HFLanguageModel
    assert any(p.requires_grad for p in llm.parameters())


@pytest.mark.parametrize(("name", "text"), [("vicuna", LLAMA), ("flan_t5", T5)])
def test_the_instructblip_configs_read_the_folder_named_at_the_top(name, text, tmp_path):
    kind = "llama" if name == "vicuna" else "t5"
    model = InstructBlipForConditionalGeneration(
        InstructBlipConfig(
            vision_config=LAYERS | {"image_size": 28, "patch_size": 14},
            qformer_config=LAYERS,
            text_config=text | {"model_type": kind},
        )
    )
    model.save_pretrained(tmp_path)
    load_tokenizer(None).save_pretrained(tmp_path)
    config = OmegaConf.create({"pretrained": str(tmp_path), "llm": load(name)})
    llm = instantiate(config.llm)
    assert llm.model.config.model_type == kind
    assert llm.model.dtype == torch.bfloat16
