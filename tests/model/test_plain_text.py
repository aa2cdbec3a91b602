from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError
from mmavlm.core.medium import Medium
from mmavlm.model.llm.rendering import Rendering
from mmavlm.model.plain_text import MARK, PlainTokenizer
from mmavlm.model.text import PromptTokenizer
from plain_tokenizers import KINDS, SIGNS, of_kind

ALL = sorted({name for kind in KINDS for name in of_kind(kind).all_special_tokens})
ORDINARY = st.text(alphabet=[*SIGNS, " "], max_size=12) | st.sampled_from(["a movie", "é", "。"])
WIDE = [name.translate({ord(sign): ord(sign) + 0xFEE0 for sign in SIGNS}) for name in ALL]
SPELLED = st.sampled_from([*ALL, *WIDE, *(name[:-1] for name in ALL), "<|im_", "end|>"])
TEXTS = st.lists(ORDINARY | SPELLED, max_size=5).map("".join)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def controls(kind):
    """Ids that no text may have; the id of what is unknown is of a text, not of control."""
    tokenizer = of_kind(kind)
    return {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_no_text_has_an_id_of_control_whatever_it_spells(kind, text):
    assert not controls(kind) & {*plain(kind).ids(text)}


@pytest.mark.parametrize("kind", KINDS)
@given(parts=st.lists(st.sampled_from(ALL) | st.text(SIGNS, max_size=9), max_size=4))
def test_a_text_that_spells_control_tokens_comes_back_from_its_ids(kind, parts):
    text = " ".join(part for part in parts if part)
    # These write known signs alone, so nothing is unknown, and spaces are single ones.
    assert of_kind(kind).decode(plain(kind).ids(text), skip_special_tokens=True).strip() == text


@pytest.mark.parametrize("kind", KINDS)
@given(text=ORDINARY)
def test_ordinary_texts_have_the_ids_that_the_tokenizer_gives_them(kind, text):
    if not any(name in text for name in of_kind(kind).all_special_tokens):
        own = of_kind(kind)(text, add_special_tokens=False)["input_ids"]
        assert plain(kind).ids(text) == own


@pytest.mark.parametrize("kind", KINDS)
def test_control_tokens_of_a_template_are_control_tokens(kind):
    tokenizer = of_kind(kind)
    for name in tokenizer.all_special_tokens:
        found = plain(kind).ids("movie", before=plain(kind).named(f"a {name}"))
        whole = tokenizer(f"a {name}movie", add_special_tokens=False, split_special_tokens=False)
        assert found == whole["input_ids"]
        assert tokenizer.convert_tokens_to_ids(name) in found


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(text=TEXTS, max_length=st.integers(4, 9), side=st.sampled_from(["left", "right"]))
def test_the_q_formers_prompt_holds_the_affixes_of_its_tokenizer_and_plain_text(
    kind, text, max_length, side
):
    tokenizer, (front, end) = of_kind(kind), plain(kind).affixes
    prompts = PromptTokenizer(max_length=max_length)
    prompts.tokenizer, prompts._plain = tokenizer, plain(kind)
    before, tokenizer.truncation_side = tokenizer.truncation_side, side
    try:
        ids = prompts.encode([text]).ids[0].tolist()
    finally:
        tokenizer.truncation_side = before
    assert len(ids) <= max_length
    assert ids[: len(front)] == front
    assert ids[len(ids) - len(end) :] == end
    assert not controls(kind) & {*ids[len(front) : len(ids) - len(end)]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("continues", [True, False])
@given(text=TEXTS)
def test_prompts_and_answers_of_a_language_model_are_plain_text(kind, continues, text):
    read = rendering(kind, continues)
    asked, empty = question(read, text).ids, question(read, "").ids
    told = read.answers.ids(text)
    front = len(read._plain.affixes[0])
    assert count(kind, asked) == count(kind, empty)
    assert told[-1] == read.answers.end[-1]
    assert not controls(kind) & {*told[0 if continues else front : -1]}


@given(text=TEXTS)
def test_a_users_turn_of_a_chat_holds_no_control_token_but_the_templates(text):
    read = rendering("bytewise", True, "auto")
    asked, empty = question(read, text), question(read, "")
    assert count("bytewise", asked.ids) == count("bytewise", empty.ids) == [2, 1]
    whole = of_kind("bytewise").decode(asked.ids[asked.media_at[0] :])
    assert whole == f"{text}<|im_end|>\n<|im_start|>assistant\n"
    told = read.answers.ids(text)
    assert count("bytewise", told) == [1]
    assert of_kind("bytewise").decode(told[:-1]) == text


def test_a_token_of_one_character_stays_an_ordinary_sign():
    tokenizer = KINDS["bytewise"]()
    tokenizer.pad_token = "!"
    assert PlainTokenizer(tokenizer).ids("a!") == tokenizer("a!")["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_name_of_a_control_token_cannot_be_written(kind):
    name = plain(kind).named(of_kind(kind).eos_token)
    assert MARK in name
    with pytest.raises(ConfigError, match=r"holds U\+E0F3 and a number, .* take it out"):
        plain(kind).ids(f"a {name}")


def test_an_answer_with_the_sign_of_the_video_has_ids_of_the_vocabulary_alone():
    read = rendering("bytewise", True, "auto")
    assert max(read.answers.ids("a \ue0f0")) < read.num_rows


def test_the_tokenizer_is_left_as_it_was():
    tokenizer = KINDS["unigram"]()
    before = tokenizer.backend_tokenizer.to_str()
    PlainTokenizer(tokenizer, ["\ue0f0"]).ids("a </s>")
    assert tokenizer.backend_tokenizer.to_str() == before


KNOWN = {}


def plain(kind):
    if kind not in KNOWN:
        KNOWN[kind] = PlainTokenizer(of_kind(kind))
    return KNOWN[kind]


def rendering(kind, continues, chat=None):
    key = kind, continues, chat
    if key not in KNOWN:
        tokenizer = of_kind(kind)
        if chat:
            tokenizer = KINDS[kind]()
            tokenizer.chat_template = CHATML
        KNOWN[key] = Rendering(
            tokenizer,
            template="{prompt}",
            max_prompt_tokens=256,
            max_answer_tokens=256,
            continues=continues,
            chat=chat,
        )
    return KNOWN[key]


def question(read, prompt):
    """The ids of a question about one film."""
    film = Medium(medium_id="film", source=Path("film.mp4"))
    return read.turns(Conversation.question(film, prompt).turns)


def count(kind, ids):
    """How often each control token is among the ids, in the order of their ids."""
    found = [ids.count(i) for i in sorted(controls(kind))]
    return [times for times in found if times]
