"""A small InstructBLIP with every key of a large one."""

import torch
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, LlamaConfig

WIDTH = 32
LAYERS = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
VISION = LAYERS | {"image_size": 28, "patch_size": 14, "initializer_range": 0.1}
QFORMER = LAYERS | {"vocab_size": 100, "encoder_hidden_size": WIDTH}
TEXT = LlamaConfig(**LAYERS, vocab_size=100).to_dict()


def build():
    torch.manual_seed(0)
    config = InstructBlipConfig(
        vision_config=VISION, qformer_config=QFORMER, text_config=TEXT, num_query_tokens=4
    )
    model = InstructBlipForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.query_tokens)
    for name, parameter in model.named_parameters():
        if "post_layernorm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    return model
