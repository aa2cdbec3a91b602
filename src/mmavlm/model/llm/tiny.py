"""A language model small enough to train from nothing on a CPU."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typing_extensions import Unpack

from mmavlm.core.errors import ConfigError
from mmavlm.model.llm.prompted import PromptedLanguageModel, PromptSettings
from mmavlm.model.text import load_tokenizer


def tiny_llm(
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    seed: int = 0,
    trainable: bool = True,
    **settings: Unpack[PromptSettings],
) -> PromptedLanguageModel:
    """A Llama of random weights with the built-in tokenizer.

    The weights depend on `seed` alone, and the global generator is left as it was.

    Raises:
        ConfigError: if `heads` does not divide `width` into even parts.
    """
    if width % (2 * heads):
        raise ConfigError(
            f"llm.width is {width} with llm.heads {heads}; choose a multiple of {2 * heads}"
        )
    tokenizer = load_tokenizer(None)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=1024,
        initializer_range=width**-0.5,  # the usual 0.02 is for widths in the thousands
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.requires_grad_(trainable)
    return PromptedLanguageModel(model, tokenizer, **settings)
