"""Small models of several architectures with random weights."""

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from mmavlm.text import load_tokenizer, tiny_tokenizer

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


def build(kind):
    torch.manual_seed(0)
    vocab = len(tiny_tokenizer())
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**LLAMA))
    if kind == "gpt2":
        config = {"vocab_size": vocab, "n_embd": WIDTH, "n_layer": 2, "n_head": 4}
        return GPT2LMHeadModel(GPT2Config(**config, initializer_range=0.3, **SPECIAL))
    if kind == "opt":
        config = {
            "vocab_size": vocab,
            "hidden_size": WIDTH,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 16,
        }
        return OPTForCausalLM(OPTConfig(**config, init_std=0.3, **SPECIAL))
    return T5ForConditionalGeneration(T5Config(**T5))


def save(kind, folder, **how):
    build(kind).save_pretrained(folder, **how)
    load_tokenizer(None).save_pretrained(folder)
    return str(folder)
