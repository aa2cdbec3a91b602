"""Small models of several architectures with random weights."""

from pathlib import Path

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from mmavlm.core.conversation import Conversation
from mmavlm.core.interfaces import MediaTokens
from mmavlm.core.medium import Medium
from mmavlm.model.text import load_tokenizer, tiny_tokenizer

WIDTH = 32
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {
    "vocab_size": len(tiny_tokenizer()),
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,  # answers that differ from video to video
    **SPECIAL,
}
T5 = {
    "vocab_size": len(tiny_tokenizer()),
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    **SPECIAL,
}


BART = {
    "vocab_size": len(tiny_tokenizer()),
    "d_model": WIDTH,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 256,
    "scale_embedding": True,
    "init_std": 0.3,
    "decoder_start_token_id": 2,
    **SPECIAL,
}
GPT2 = {
    "vocab_size": len(tiny_tokenizer()),
    "n_embd": WIDTH,
    "n_layer": 2,
    "n_head": 4,
    "initializer_range": 0.3,
    **SPECIAL,
}
OPT = {
    "vocab_size": len(tiny_tokenizer()),
    "hidden_size": WIDTH,
    "ffn_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "word_embed_proj_dim": 16,
    "init_std": 0.3,
    **SPECIAL,
}
# Grouped heads, windows shorter than a prompt, scaled embeddings, learned and relative positions.
GROUPED = LLAMA | {"num_key_value_heads": 2}
WINDOW = GROUPED | {"sliding_window": 8}
GEMMA = GROUPED | {"head_dim": 8, "initializer_range": 0.1}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, LLAMA),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, GROUPED),
    "mistral": (MistralForCausalLM, MistralConfig, WINDOW),
    "gemma": (GemmaForCausalLM, GemmaConfig, GEMMA),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config, GEMMA | {"sliding_window": 8}),
    "gpt2": (GPT2LMHeadModel, GPT2Config, GPT2),
    "opt": (OPTForCausalLM, OPTConfig, OPT),
    "t5": (T5ForConditionalGeneration, T5Config, T5),
    "bart": (BartForConditionalGeneration, BartConfig, BART),
}


def build(kind, **settings):
    torch.manual_seed(0)
    model, config, known = FAMILIES[kind]
    return model(config(**known | settings))


def save(kind, folder, **how):
    build(kind).save_pretrained(folder, **how)
    load_tokenizer(None).save_pretrained(folder)
    return str(folder)


FILM = Medium(medium_id="film", source=Path("film.mp4"))


def asking(prompts, targets=None):
    """A question about one film for each prompt, with the answers to learn if given."""
    targets = targets or [None] * len(prompts)
    pairs = zip(prompts, targets, strict=True)
    return [Conversation.question(FILM, prompt, target) for prompt, target in pairs]


def seen(video, mask=None):
    """The tokens (B,K,Dl) of one film for each conversation."""
    return MediaTokens(video, [1] * len(video), mask)


def question(rendering, prompt):
    """The ids of a question about one film."""
    return rendering.turns(Conversation.question(FILM, prompt).turns)
