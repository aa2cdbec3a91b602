"""A small LLaVA-OneVision folder with every key of a large one, and the settings for it."""

import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from plain_tokenizers import bytewise

VISION = {
    "model_type": "siglip_vision_model", "hidden_size": 48, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56, "patch_size": 8,
    "vision_use_head": False,
}  # fmt: skip
TEXT = {
    "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
}  # fmt: skip


def save(folder):
    """Write it with weights and a tokenizer for ChatML, and give the model."""
    tokenizer = bytewise()
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(folder)
    words = len(tokenizer)
    config = LlavaOnevisionConfig(
        vision_config=VISION,
        text_config=TEXT | {"vocab_size": words, "eos_token_id": tokenizer.eos_token_id},
        image_token_index=words - 1,
        video_token_index=words - 1,
    )
    torch.manual_seed(0)
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    return model


def overrides(folder):
    """The settings of the backbone that belong to it."""
    return [
        "model=llava_onevision", f"pretrained={folder}", "text_encoder=tiny", "qformer=tiny",
        "encoder.dtype=float32", "llm.dtype=float32",
    ]  # fmt: skip
