import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mmavlm.core.errors import ConfigError
from mmavlm.model.llm.texts import Texts
from mmavlm.model.text import load_tokenizer, padded


def texts(tokenizer=None, *, continues=True, template="{prompt}", prompt=128, answer=256):
    return Texts(
        tokenizer or load_tokenizer(None),
        template=template,
        max_prompt_tokens=prompt,
        max_answer_tokens=answer,
        continues=continues,
    )


@pytest.fixture
def sentencepiece_like():
    """A tokenizer that writes every word with its leading space, the first one too."""
    vocab = {token: i for i, token in enumerate(["<unk>", "</s>", "▁it", "▁is", "▁comedy"])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


def test_answers_are_read_with_the_space_that_precedes_them():
    tiny = texts()
    names = tiny.tokenizer.convert_ids_to_tokens(tiny.answer("husband wife"))
    assert names == ["Ġhusband", "Ġwife", "<eos>"]


def test_a_tokenizer_that_adds_the_space_itself_gets_none_more(sentencepiece_like):
    ids = texts(sentencepiece_like).answer("comedy")
    assert sentencepiece_like.convert_ids_to_tokens(ids) == ["▁comedy", "</s>"]


def test_answers_of_a_decoder_have_no_space_before_them():
    tiny = texts(continues=False)
    names = tiny.tokenizer.convert_ids_to_tokens(tiny.answer("comedy"))
    assert names == ["<bos>", "comedy", "<eos>"]  # as this tokenizer writes any text


@given(st.text(max_size=50))
def test_an_answer_comes_back_from_its_ids(text):
    assert texts().decode(texts().answer(text)) == text.strip()


def test_an_empty_answer_is_only_an_end():
    assert texts().answer("") == [texts().eos_id]


def test_a_cut_answer_has_no_end():
    ids = texts(answer=2).answer("a man and a woman")
    assert texts().decode(ids) == "a man"
    assert texts().eos_id not in ids


def test_a_long_prompt_loses_its_beginning_and_keeps_its_special_token():
    short = texts(prompt=4)
    ids = short.prompt("what is the genre of the movie").ids
    assert ids[0] == short.tokenizer.bos_token_id
    assert short.decode(ids) == "of the movie"


def test_a_prompt_is_put_into_the_template_as_it_is():
    asked = texts(template="User: {prompt} Assistant:")
    assert asked.decode(asked.prompt("{what} is {prompt}").ids) == (
        "User: {what} is {prompt} Assistant:"
    )


def test_generated_ids_end_with_the_first_end():
    tiny = texts()
    end = tiny.eos_id
    assert tiny.until_end([7, 8, end, 0, end]) == [7, 8, end]
    assert tiny.until_end([7, 8]) == [7, 8]


def test_rows_are_padded_on_the_right():
    ids, mask = padded([[5, 6, 7], [8], []], torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0], [0, 0, 0]]
    assert mask.tolist() == [[True] * 3, [True, False, False], [False] * 3]


def test_a_template_without_a_place_for_the_prompt_is_refused():
    with pytest.raises(ConfigError, match=r"llm.prompt_template is 'Hi'; it must hold \{prompt\}"):
        texts(template="Hi")


def test_lengths_below_one_are_refused():
    with pytest.raises(ConfigError, match=r"max_prompt_tokens and .* must be 1 or more, got 0"):
        texts(prompt=0)


def test_a_tokenizer_without_an_end_is_refused():
    tokenizer = load_tokenizer(None)
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match=r"no end-of-text token; choose llm.tokenizer"):
        texts(tokenizer)


@pytest.mark.parametrize("template", ["{prompt}", "look: {video} {prompt} in a word"])
def test_the_first_prompt_that_loses_its_beginning_is_told_with_its_length(template, caplog):
    read = texts(template=template, prompt=9)
    for words in (3, 20, 30):
        read.prompt("movie" + " movie" * (words - 1))
    [told] = [record.message for record in caplog.records]
    assert told.startswith("a prompt of 20 tokens loses its beginning")
    assert "raise llm.max_prompt_tokens=9" in told
