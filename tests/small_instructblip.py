"""A small InstructBLIP folder with every key of a large one, and the backbone's settings for it."""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

WORDS = ["[PAD]", "[UNK]", "<s>", "</s>", "what", "happens", "?", "comedy", "is", "the", "movie"]


VOCABULARY = len(WORDS)


def save(folder, width=32, layers=2, vocabulary=VOCABULARY, **how):
    """Write it with weights and tokenizers; `how` is handed to `save_pretrained`."""
    save_tokenizer(folder, vocabulary)
    save_tokenizer(folder / "qformer_tokenizer", vocabulary)
    torch.manual_seed(0)
    model = InstructBlipForConditionalGeneration(config(width, layers, vocabulary)).eval()
    torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(folder, **how)
    return folder


def save_tokenizer(folder, vocabulary=VOCABULARY):
    """Write a tokenizer of that many words."""
    PreTrainedTokenizerFast(
        tokenizer_object=_word_level(vocabulary), pad_token="[PAD]", unk_token="[UNK]",
        bos_token="<s>", eos_token="</s>",
    ).save_pretrained(folder)  # fmt: skip


def config(width, layers, vocabulary):
    """Its sizes; every second layer of the Q-Former looks at the picture."""
    sizes = {
        "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers,
        "num_attention_heads": 4,
    }  # fmt: skip
    return InstructBlipConfig(
        vision_config=sizes | {"image_size": 64, "patch_size": 16, "initializer_range": 0.1},
        qformer_config=sizes
        | {"vocab_size": vocabulary, "encoder_hidden_size": width, "initializer_range": 0.3},
        text_config=LlamaConfig(**sizes, vocab_size=vocabulary).to_dict(),
        num_query_tokens=4,
    )


def overrides(folder, width=32, layers=2):
    """The settings of the backbone that belong to it."""
    return [
        "model=instructblip_vicuna", f"pretrained={folder}", "text_encoder=tiny",
        "encoder.dtype=float32", "llm.dtype=float32", "qformer_queries=4",
        f"qformer.width={width}", f"qformer.layers={layers}", "qformer.heads=4",
        f"qformer.hidden_width={2 * width}",
    ]  # fmt: skip


def _word_level(size):
    words = [*WORDS, *(f"word{i}" for i in range(size - len(WORDS)))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer
