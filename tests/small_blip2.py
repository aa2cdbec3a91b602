"""A small BLIP-2 folder with every key of a large one, a Llama beside it, and settings for both."""

import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
)

import small_instructblip

WIDTH, LAYERS, QUERIES = 32, 4, 4
OVERRIDES = ("temporal=video_qformer", "vision.position_init=none", "vision.norm_eps=1e-5")


def save(folder, **how):
    """Write both, the Llama into `llama` with a tokenizer; `how` is handed to `save_pretrained`."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
    }  # fmt: skip
    words = T5Config(d_model=WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=20)
    config = Blip2Config(
        vision_config=sizes | {"image_size": 64, "patch_size": 16, "initializer_range": 0.1},
        qformer_config=sizes | {"encoder_hidden_size": WIDTH, "initializer_range": 0.3},
        text_config=words.to_dict(),
        num_query_tokens=QUERIES,
    )
    model = Blip2ForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(folder, **how)
    llama = folder / "llama"
    LlamaForCausalLM(
        LlamaConfig(**sizes, vocab_size=small_instructblip.VOCABULARY)
    ).save_pretrained(llama)
    small_instructblip.save_tokenizer(llama)
    return folder


def overrides(folder):
    """The settings of the backbone that belong to it."""
    return [
        "model=blip2_vicuna", f"pretrained={folder}", f"llm.pretrained={folder}/llama",
        "text_encoder=tiny", "encoder.dtype=float32", "llm.dtype=float32",
        f"qformer_queries={QUERIES}", f"qformer.width={WIDTH}", f"qformer.layers={LAYERS}",
        "qformer.heads=4", f"qformer.hidden_width={2 * WIDTH}", "alignment=none", *OVERRIDES,
    ]  # fmt: skip
