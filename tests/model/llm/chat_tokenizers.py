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


def llama2():
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    alphabet = [chr(c) for c in range(32, 127)] + ["\n"]
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return _trained(backend, names, [], LLAMA2, alphabet)


def chatml():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    turns = ["<|im_start|>", "<|im_end|>"]
    return _trained(backend, names, turns, CHATML, pre_tokenizers.ByteLevel.alphabet())


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
ENDS = {"llama2": "</s>", "chatml": "<|im_end|>", "gemma": "<end_of_turn>"}
