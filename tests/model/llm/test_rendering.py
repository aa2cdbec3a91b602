import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import question
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mmavlm.core.errors import ConfigError
from mmavlm.model.llm.rendering import Rendering
from mmavlm.model.text import load_tokenizer, padded


def rendering(tokenizer=None, *, continues=True, template="{prompt}", prompt=128, answer=256):
    return Rendering(
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
    tiny = rendering()
    names = tiny.tokenizer.convert_ids_to_tokens(tiny.answers.ids("husband wife"))
    assert names == ["Ġhusband", "Ġwife", "<eos>"]


def test_a_tokenizer_that_adds_the_space_itself_gets_none_more(sentencepiece_like):
    ids = rendering(sentencepiece_like).answers.ids("comedy")
    assert sentencepiece_like.convert_ids_to_tokens(ids) == ["▁comedy", "</s>"]


def test_answers_of_a_decoder_have_no_space_before_them():
    tiny = rendering(continues=False)
    names = tiny.tokenizer.convert_ids_to_tokens(tiny.answers.ids("comedy"))
    assert names == ["<bos>", "comedy", "<eos>"]  # as this tokenizer writes any text


@given(st.text(max_size=50))
def test_an_answer_comes_back_from_its_ids(text):
    assert rendering().answers.decode(rendering().answers.ids(text)) == text.strip()


def test_an_empty_answer_is_only_an_end():
    assert rendering().answers.ids("") == [rendering().answers.eos_id]


def test_a_cut_answer_has_no_end():
    ids = rendering(answer=2).answers.ids("a man and a woman")
    assert rendering().answers.decode(ids) == "a man"
    assert rendering().answers.eos_id not in ids


def test_a_long_prompt_loses_its_beginning_and_keeps_its_special_token():
    short = rendering(prompt=4)
    ids = question(short, "what is the genre of the movie").ids
    assert ids[0] == short.tokenizer.bos_token_id
    assert short.answers.decode(ids) == "of the movie"


def test_a_prompt_is_put_into_the_template_as_it_is():
    asked = rendering(template="User: {prompt} Assistant:")
    assert asked.answers.decode(question(asked, "{what} is {prompt}").ids) == (
        "User: {what} is {prompt} Assistant:"
    )


def test_generated_ids_end_with_the_first_end():
    tiny = rendering()
    end = tiny.answers.eos_id
    assert tiny.answers.until_end([7, 8, end, 0, end]) == [7, 8, end]
    assert tiny.answers.until_end([7, 8]) == [7, 8]
    assert tiny.answers.ended([7, 8, end])
    assert not tiny.answers.ended([7, 8])


def test_rows_are_padded_on_the_right():
    ids, mask = padded([[5, 6, 7], [8], []], torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0], [0, 0, 0]]
    assert mask.tolist() == [[True] * 3, [True, False, False], [False] * 3]


def test_a_template_without_a_place_for_the_prompt_is_refused():
    with pytest.raises(ConfigError, match=r"llm.prompt_template is 'Hi'; it must hold \{prompt\}"):
        rendering(template="Hi")


def test_lengths_below_one_are_refused():
    with pytest.raises(ConfigError, match=r"max_prompt_tokens and .* must be 1 or more, got 0"):
        rendering(prompt=0)


def test_a_tokenizer_without_an_end_is_refused():
    tokenizer = load_tokenizer(None)
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match=r"no end-of-text token; choose llm.tokenizer"):
        rendering(tokenizer)


@pytest.mark.parametrize("template", ["{prompt}", "look: {video} {prompt} in a word"])
def test_the_first_prompt_that_loses_its_beginning_is_told_with_its_length(template, caplog):
    read = rendering(template=template, prompt=9)
    for words in (3, 20, 30):
        question(read, "movie" + " movie" * (words - 1))
    [told] = [record.message for record in caplog.records]
    assert told.startswith("a prompt of 20 tokens loses its beginning")
    assert "raise llm.max_prompt_tokens=9" in told
