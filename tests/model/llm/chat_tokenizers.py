"""Tokenizers trained here in the manner of three families, each with its family's chat template."""

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "what is the genre of the movie? a comedy, a zebra, a drama",
    "why does the man sit in the prison? the wife of his friend asks user and model",
    "[INST] assistant [/INST] system husband wife ex-boyfriend ex-girlfriend",
] * 4
SIGNS = "é\u0301🎈电影。"  # which a tokenizer without bytes must have seen

# Each turn as the family writes it; Llama 2 opens no turn for the assistant.
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} "
    "[/INST]{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


# The system speaks with the last question alone, and no space stands in front of its end.
MISTRAL = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if m.role == 'user' %}"
    "[INST] {% if loop.last and system is defined %}{{ system }}\n\n{% endif %}{{ m.content }}"
    "[/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# ChatML, in which the system always speaks.
QWEN2 = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\n"
    "be a movie<|im_end|>\n{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


OF_LLAMA3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def llama3():
    tokenizer = chatml()
    tokenizer.bos_token = "<|begin_of_text|>"
    return tokenizer


def llama2():
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    alphabet = [chr(c) for c in range(32, 127)] + ["\n", *SIGNS]
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return _trained(backend, names, [], LLAMA2, alphabet)


def chatml():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    turns = ["<|im_start|>", "<|im_end|>"]
    return _trained(
        backend, names, [*turns, *OF_LLAMA3], CHATML, pre_tokenizers.ByteLevel.alphabet()
    )


def gemma():
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Replace("▁", " ")
    alphabet = [chr(c) for c in range(33, 127)] + ["\n", "▁"]
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    return _trained(backend, names, ["<start_of_turn>", "<end_of_turn>"], GEMMA, alphabet)


def _trained(backend, names, turns, template, alphabet):
    special = [AddedToken(name, special=True) for name in dict.fromkeys([*names.values(), *turns])]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=list(alphabet),
        max_token_length=7,
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.chat_template = template
    return tokenizer


CHATS = {"llama2": llama2, "chatml": chatml, "gemma": gemma}
# A tokenizer of the family, its chat template or the name of one, and the end of an answer.
FAMILIES = {
    "vicuna": (llama2, "vicuna_v1", "</s>"),
    "llama_2": (llama2, "llama_2", "</s>"),
    "llama_3": (llama3, LLAMA3, "<|eot_id|>"),
    "qwen2": (chatml, QWEN2, "<|im_end|>"),
    "mistral": (llama2, MISTRAL, "</s>"),
    "chatml": (chatml, "chatml", "<|im_end|>"),
    "video_llama": (llama2, "video_llama", "###"),
    "chatml_as_text": (llama2, "chatml", "<|im_end|>"),
}
ENDS = {"llama2": "</s>", "chatml": "<|im_end|>", "gemma": "<end_of_turn>"}
