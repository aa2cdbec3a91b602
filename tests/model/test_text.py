import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.data.readers.clean_up import clean_caption, clean_captions
from mmavlm.model.text import PromptTokenizer, load_tokenizer, tiny_tokenizer

LVU_LABELS = """
steven martin ron robert mark peter ridley quentin discuss confront explain teach threaten
david akiva john unknown sylvester ian stephen action comedy thriller romance
school office airport hotel prison restaurant husband wife friend boyfriend girlfriend
0 1 2 3 4 5 6 7 8
"""
TEXTS = st.text() | st.lists(st.sampled_from(["<eos>", "<bos>", "comedy", " ", "é"])).map("".join)


def ids_of(text, tokenizer=None):
    return (tokenizer or tiny_tokenizer())(text, add_special_tokens=False)["input_ids"]


@given(TEXTS)
def test_tiny_tokenizer_gives_any_text_back(text):
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@given(TEXTS)
def test_no_text_is_read_as_a_special_token(text):
    assert not set(ids_of(text)) & set(tiny_tokenizer().all_special_ids)


@pytest.mark.parametrize("word", LVU_LABELS.split())
def test_class_names_are_single_tokens_at_the_start_and_after_a_space(word):
    assert len(ids_of(word)) == 1
    assert len(ids_of(f" {word}")) == 1


def test_the_prompts_of_the_public_sets_hold_no_bytes_but_punctuation():
    for prompt in (
        "what is the relationship of the movie?",
        "what type of breakfast is shown in the video?",
        "Question: who is singing? Short answer:",
        "what does the video describe?",
    ):
        words = prompt.replace("?", " ?").replace(":", " :").split()
        assert len(ids_of(prompt)) == len(words)


def test_tiny_tokenizer_is_built_once_and_in_milliseconds():
    assert tiny_tokenizer() is tiny_tokenizer()
    start = time.perf_counter()
    load_tokenizer(None)
    assert time.perf_counter() - start < 0.5


def test_tiny_tokenizer_survives_being_saved(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    text = "a comedy about <eos> zebras"
    loaded = load_tokenizer(str(tmp_path))
    assert loaded(text)["input_ids"] == tiny_tokenizer()(text)["input_ids"]


def test_special_tokens_have_distinct_ids():
    tokenizer = tiny_tokenizer()
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id")
    assert len({getattr(tokenizer, name) for name in names}) == 4


def test_prompts_are_padded_on_the_right_under_the_mask():
    tokens = PromptTokenizer().encode(["a comedy", "what is the genre of the movie?"])
    assert tokens.ids.shape == tokens.mask.shape == (2, 9)
    assert tokens.mask.dtype == torch.bool
    assert tokens.mask[0].tolist() == [True] * 3 + [False] * 6
    assert tokens.ids[0, 3:].eq(tiny_tokenizer().pad_token_id).all()


def test_encode_puts_tokens_on_the_device_it_is_given():
    assert PromptTokenizer().encode(["a"], device="meta").ids.device.type == "meta"


@pytest.mark.parametrize(
    ("side", "kept"), [("left", " of the movie?"), ("right", "what is the genre")]
)
def test_long_prompts_lose_one_side_and_keep_special_tokens(side, kept):
    tokenizer = PromptTokenizer(max_length=5, truncation_side=side)
    ids = tokenizer.encode(["what is the genre of the movie?"]).ids[0]
    assert ids[0] == tokenizer.tokenizer.bos_token_id
    assert tokenizer.tokenizer.decode(ids, skip_special_tokens=True) == kept


def test_vocab_size_bounds_every_id():
    tokenizer = PromptTokenizer()
    assert tokenizer.encode(["zebras, “quoted”; and movies"]).ids.max() < tokenizer.vocab_size


def test_a_tokenizer_is_read_from_a_subfolder(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path / "qformer_tokenizer")
    tokenizer = PromptTokenizer(str(tmp_path), subfolder="qformer_tokenizer")
    assert torch.equal(tokenizer.encode(["a film"]).ids, PromptTokenizer().encode(["a film"]).ids)


def test_a_tokenizer_without_padding_pads_with_end_of_text(tmp_path):
    tokenizer = load_tokenizer(None)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    tokens = PromptTokenizer(str(tmp_path)).encode(["a", "a comedy"])
    assert tokens.mask[0].tolist() == [True, True, False]
    assert tokens.ids[0, 2] == tokenizer.eos_token_id


def test_changing_a_loaded_tokenizer_leaves_the_shared_one_alone():
    load_tokenizer(None, truncation_side="left")
    assert tiny_tokenizer().truncation_side == "right"


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer .* subfolder 'nope'.* give a folder"):
        PromptTokenizer(str(tmp_path), subfolder="nope")
    with pytest.raises(CheckpointError, match=r"no tokenizer could be read from .*missing"):
        PromptTokenizer(str(tmp_path / "missing"))


def test_a_length_without_room_for_text_is_refused():
    with pytest.raises(ConfigError, match=r"max_length is 1, but 1 of them are special.*set 2"):
        PromptTokenizer(max_length=1)


def test_an_unknown_truncation_side_is_refused():
    with pytest.raises(ConfigError, match="truncation_side is 'middle'; choose 'left' or 'right'"):
        PromptTokenizer(truncation_side="middle")


def test_captions_are_cleaned_as_published():
    assert clean_caption('A man (old) says: "Hi!"  *Bye*; #1 ~ end.\n') == (
        "a man old says hi bye 1 end"
    )
    assert clean_caption("who's there, then?") == "who's there, then?"


@settings(max_examples=50)
@given(st.text(), st.integers(1, 10))
def test_cleaning_is_idempotent_and_bounded(text, max_words):
    cleaned = clean_caption(text, max_words)
    assert clean_caption(cleaned, max_words) == cleaned
    assert len(cleaned.split()) <= max_words


@given(
    texts=st.lists(st.text() | st.text(" \t\r\v\f\x1c\x1f\u00a0\u2003aB.(\"'Σ\n"), min_size=1),
    max_words=st.integers(1, 4),
)
def test_captions_are_cleaned_up_together_as_each_alone(texts, max_words):
    together = clean_captions(texts, max_words)
    assert together == [clean_caption(text, max_words) for text in texts]
