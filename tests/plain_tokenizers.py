"""Tokenizers of several kinds, trained here, with models and control tokens of their own."""

from functools import cache

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from mmavlm.model.text import load_tokenizer

SIGNS = [chr(c) for c in range(33, 127)]
CORPUS = ["what is the genre of the movie? a comedy </s> [MASK] <pad> <unk>", "".join(SIGNS)] * 20
SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def bytewise():
    """Byte-level BPE whose control tokens are added behind its vocabulary, as in ChatML."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    turns = [AddedToken(name, special=True) for name in ("<|im_start|>", "<|im_end|>", "<image>")]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": turns})
    return tokenizer


def merged():
    """BPE on characters whose merges lead to the control tokens, as conversions leave them."""
    control = list(SPECIAL.values())
    pieces, merges = [*control, *SIGNS, "▁"], []
    for name in control:
        for end in range(2, len(name) + 1):
            merges.append((name[: end - 1], name[end - 1]))
            pieces.append(name[:end])
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Replace("▁", " ")
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)


def unigram():
    """A Unigram model, whose control tokens are pieces like others, behind NFKC, as in T5."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=160,
        special_tokens=list(SPECIAL.values()),
        unk_token="<unk>",
        initial_alphabet=[*SIGNS, "▁"],
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", backend.token_to_id("</s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **SPECIAL, clean_up_tokenization_spaces=False
    )


def wordpiece():
    """WordPiece on words between spaces, cased, so that it could find its own control tokens."""
    control = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*control, *SIGNS, *(f"##{sign}" for sign in SIGNS)]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(cleanup=False)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    names |= {"sep_token": "[SEP]", "mask_token": "[MASK]", "eos_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **names, clean_up_tokenization_spaces=False
    )


KINDS = {
    "bytewise": bytewise,
    "merged": merged,
    "unigram": unigram,
    "wordpiece": wordpiece,
    "python": ByT5Tokenizer,  # bytes, without a backend of the library tokenizers
    "built-in": lambda: load_tokenizer(None),
}


@cache
def of_kind(kind):
    return KINDS[kind]()
