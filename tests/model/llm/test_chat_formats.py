"""Chats of real families as ids, and the formats that have a name."""

import logging

import pytest
import torch
from chat_tokenizers import FAMILIES, llama2
from models import asking, build, seen

from mmavlm.core.chat_formats import CHAT_FORMATS
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import MediaTokens
from mmavlm.core.turns import Shown, Turn
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.model.llm.rendering import Rendering
from mmavlm.model.llm.session import search_for

SYSTEM = Turn("system", ("answer as a zebra",))
SAID = ["a comedy", "🎈 e\u0301 电影。é", "2"]
TALK = [
    Turn("user", (Shown(0), Shown(1), "what is the genre of the movie?")),
    Turn("assistant", (SAID[0],), learned=True),
    Turn("user", ("why does 🎈", Shown(1), "the man e\u0301", Shown(0), "sit in 电影?")),
    Turn("assistant", (SAID[1],), learned=True),
    Turn("user", ("who is she?",)),
    Turn("assistant", (SAID[2],), learned=True),
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    make, chat, end = FAMILIES[request.param]
    return make(), chat, end


def rendering(family, **settings):
    lengths = {"max_prompt_tokens": 128, "max_answer_tokens": 64, "continues": True}
    return Rendering(family[0], template="{prompt}", chat=family[1], **lengths | settings)


def with_media(read, rendered):
    """The text of a conversation with a sign where media stand."""
    stops = [*rendered.media_at, len(rendered.ids)]
    begins = [0, *rendered.media_at]
    return "@".join(
        read.tokenizer.decode(rendered.ids[begin:stop])
        for begin, stop in zip(begins, stops, strict=True)
    )


@pytest.mark.parametrize("front", [[], [SYSTEM]], ids=["alone", "system"])
def test_what_is_learned_are_exactly_the_answers_and_their_ends(family, front):
    read = rendering(family)
    rendered = read.turns([*front, *TALK])
    spans = [rendered.ids[start:stop] for start, stop in rendered.learned]
    assert [read.tokenizer.decode(ids).strip() for ids in spans] == [
        f"{text}{family[2]}" for text in SAID
    ]
    assert [read.answers.decode(ids) for ids in spans] == SAID
    assert spans == [read.answers.ids(text) for text in SAID]


@pytest.mark.parametrize("front", [[], [SYSTEM]], ids=["alone", "system"])
def test_media_stand_where_turns_show_them_and_turns_without_have_none(family, front):
    read = rendering(family)
    text = with_media(read, read.turns([*front, *TALK[:5]]))
    assert text.count("@") == 4
    assert "".join(text.split()).count("why does 🎈@the man".replace(" ", "")) == 1
    assert all(said in text for said in SAID[:2])
    assert "zebra" in text or not front
    assert read.turns([*front, Turn("user", ("who is she?",))]).media_at == []


def test_a_long_turn_loses_its_beginning_no_medium_and_is_told_of(family, caplog):
    read = rendering(family, max_prompt_tokens=12)
    with caplog.at_level(logging.WARNING):
        rendered = read.turns([Turn("user", (Shown(0), "movie " * 40, Shown(1), "a zebra 🎈"))])
    assert len(rendered.media_at) == 2
    assert with_media(read, rendered).count("zebra") == 1
    [told] = caplog.messages
    assert "loses its beginning" in told
    assert "llm.max_prompt_tokens=12" in told


def test_an_answer_goes_on_from_what_is_asked(family):
    read = rendering(family)
    for stop in (2, 4, 6):
        asked, whole = read.turns(TALK[: stop - 1]), read.turns(TALK[:stop])
        assert whole.ids[: len(asked.ids)] == asked.ids
        assert whole.learned[-1][0] == len(asked.ids)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_stops_at_the_end_of_the_format(family, beams):
    tokenizer, chat, _ = family
    model = build("llama", vocab_size=len(tokenizer)).requires_grad_(False)
    llm = PromptedLanguageModel(model, tokenizer, chat_template=chat)
    script = [*llm.answers.ids("a comedy"), *llm.answers.ids("zebra")]
    steps = iter(range(len(script)))

    def follow(module, inputs, logits):
        bias = torch.full_like(logits[:, -1:], -1e4)
        bias[..., script[next(steps)]] = 1e4
        return bias

    hook = llm.model.get_output_embeddings().register_forward_hook(follow)
    search = Generation(num_beams=beams, max_new_tokens=len(script))
    found = llm.layout.generate(
        llm.asked([llm.rendering.turns(TALK[4:5])], MediaTokens(torch.zeros(0, 1, llm.width), [0]),
                  [len(script)]),
        search_for(llm, search),
    )  # fmt: skip
    hook.remove()
    ids = llm.answers.until_end(found[0].tolist())
    assert ids == llm.answers.ids("a comedy")
    assert found.shape[1] == len(ids)
    assert llm.answers.decode(ids) == "a comedy"


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_empty_turns_are_refused(role):
    with pytest.raises(DataError, match=f"turn of the {role} is empty"):
        Turn(role, (" ",))


@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_a_sequence_to_sequence_model_has_no_format(name):
    model = build("t5", vocab_size=len(llama2()))
    with pytest.raises(ConfigError, match=f"llm.chat_template={name} is a format of causal"):
        PromptedLanguageModel(model, llama2(), chat_template=name)


def test_the_published_video_llama_asks_in_its_own_format():
    read = rendering((llama2(), "video_llama"))
    text = with_media(read, read.turns(TALK[:3]))
    assert text.replace("<s> ", "<s>") == (
        "<s>###Human: @@what is the genre of the movie?###Assistant: a comedy###"
        "Human: why does 🎈@the man e\u0301@sit in 电影?###Assistant:"
    )
    with_system = read.tokenizer.decode(read.turns([SYSTEM, TALK[4]]).ids)
    assert "answer as a zebra###Human: who is she?###Assistant:" in with_system


def test_an_end_that_is_text_cannot_be_held_back():
    tokenizer = llama2()
    llm = PromptedLanguageModel(
        build("llama", vocab_size=len(tokenizer)), tokenizer, chat_template="video_llama"
    )
    with pytest.raises(ConfigError, match="end with the text '###', which cannot be held back"):
        llm.generate(asking(["hi"]), seen(torch.zeros(1, 2, llm.width)),
                     Generation(min_new_tokens=2))  # fmt: skip


def test_the_beginning_of_an_end_is_not_heard():
    answers = rendering((llama2(), "video_llama")).answers
    ids = answers.ids("a comedy")
    heard = [answers.decode_begun(ids[:n]) for n in range(len(ids) + 1)]
    assert heard[-1] == "a comedy"
    assert not any("#" in text for text in heard)
