"""Conversations of several turns as ids: with a chat template, and without."""

import re

import pytest
from chat_tokenizers import CHATML, CHATS, chatml
from hypothesis import given, settings
from hypothesis import strategies as st
from models import asking
from tokenizers import AddedToken

from mmavlm.core.errors import ConfigError
from mmavlm.core.turns import Shown, Turn
from mmavlm.model.llm import chat
from mmavlm.model.llm.rendering import Rendering
from mmavlm.model.plain_text import MARK
from mmavlm.model.text import load_tokenizer
from plain_tokenizers import KINDS, of_kind

FILM = -1  # where a film stands
SYSTEM = Turn("system", ("answer as a zebra",))
TALK = (
    Turn("user", (Shown(0), "what is the genre of the movie?")),
    Turn("assistant", ("a comedy",)),
    Turn("user", ("why does", Shown(1), Shown(0), "the man sit", Shown(1))),
    Turn("assistant", ("the wife of his friend asks",)),
    Turn("user", ("who is she?", Shown(2))),
)
TEXTS = st.text("a b\n[]é。,", min_size=1, max_size=9).filter(str.strip)


def rendering(tokenizer, chat="auto", template="{prompt}", **settings):
    lengths = {"max_prompt_tokens": 64, "max_answer_tokens": 64, "continues": True}
    return Rendering(tokenizer, template=template, chat=chat, **lengths | settings)


def with_films(rendered):
    """The ids with FILM where media stand."""
    ids = list(rendered.ids)
    for at in reversed(rendered.media_at):
        ids.insert(at, FILM)
    return ids


def own_ids(name, turns):
    """The ids of a chat about pictures as processors make them: all of it in one text."""
    tokenizer = CHATS[name]()
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)])
    told = []
    for turn in turns:
        parts = (part if isinstance(part, str) else "<image>" for part in turn.parts)
        told.append({"role": turn.role, "content": "".join(parts)})
    ids = tokenizer.apply_chat_template(told, add_generation_prompt=True, return_dict=False)
    return [FILM if i == tokenizer.convert_tokens_to_ids("<image>") else i for i in ids]


def learning(turns):
    """The same turns, of which the assistant's are learned."""
    return [Turn(t.role, t.parts, learned=t.role == "assistant") for t in turns]


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("turns", [TALK, TALK[:3], TALK[:1], (SYSTEM, *TALK)])
def test_a_conversation_is_what_the_template_makes_of_it_with_media_in_their_places(name, turns):
    assert with_films(rendering(CHATS[name]()).turns(turns)) == own_ids(name, turns)


@pytest.mark.parametrize("name", CHATS)
def test_what_is_learned_are_the_answers_and_their_ends(name):
    read = rendering(CHATS[name]())
    rendered = read.turns(learning([SYSTEM, *TALK[:4]]))
    spans = [rendered.ids[start:stop] for start, stop in rendered.learned]
    assert spans == [read.answers.ids(TALK[1].text), read.answers.ids(TALK[3].text)]
    assert not read.turns(TALK[:4]).learned


def kinds_and_chats():
    yield from ((of_kind(kind), None) for kind in KINDS)
    yield from ((make(), "auto") for make in CHATS.values())
    yield of_kind("python"), CHATML


@pytest.mark.parametrize(("tokenizer", "chat"), [*kinds_and_chats()], ids=[*KINDS, *CHATS, "bytes"])
@settings(max_examples=20)
@given(said=st.lists(TEXTS, min_size=4, max_size=4))
def test_what_is_asked_begins_what_is_learned_whatever_is_said(tokenizer, chat, said):
    read = known(tokenizer, chat)
    turns = learning([Turn(("user", "assistant")[n % 2], (text,)) for n, text in enumerate(said)])
    whole = read.turns(turns)
    for n, (start, stop) in enumerate(whole.learned):
        asked = read.turns(turns[: 2 * n + 1]).ids
        if n == 0:
            assert whole.ids[:start] == asked[:start] == asked
        answer = read.answers.ids(said[2 * n + 1])
        assert whole.ids[start:stop][-1] == answer[-1]
        assert read.answers.decode(whole.ids[start:stop]) == read.answers.decode(answer)


KNOWN = {}


def known(tokenizer, chat):
    key = id(tokenizer), chat
    if key not in KNOWN:
        KNOWN[key] = rendering(tokenizer, chat)
    return KNOWN[key]


def test_a_token_across_the_beginning_of_an_answer_is_taken_apart():
    newline = chatml()
    newline.add_tokens([AddedToken("\n\n", normalized=False)])
    read = rendering(newline)
    rendered = read.turns(learning([TALK[0], Turn("assistant", ("\n\nhi",))]))
    [(start, stop)] = rendered.learned
    assert newline.decode(rendered.ids[:start]).endswith("<|im_start|>assistant\n")
    assert newline.decode(rendered.ids[start:stop]) == "\n\nhi<|im_end|>"


def test_without_a_chat_template_turns_follow_each_other_as_texts_of_their_own():
    read = rendering(load_tokenizer(None), None)
    first, later = (read.turns([TALK[n]]) for n in (0, 2))
    rendered = read.turns(learning(TALK[:3]))
    bos = read.tokenizer.bos_token_id
    answer = read.answers.ids(TALK[1].text)
    assert first.ids[0] == later.ids[0] == bos
    assert rendered.ids == [*first.ids, *answer, *later.ids[1:]]
    behind = len(first.ids) + len(answer)
    assert rendered.learned == [(len(first.ids), behind)]
    assert rendered.media_at == [0, *(behind + at - 1 for at in later.media_at)]


def test_media_stand_where_a_turn_shows_them():
    tiny = load_tokenizer(None)
    read = rendering(tiny, None)
    rendered = read.turns([Turn("user", (Shown(0), "compare it", Shown(1), " and", Shown(0)))])
    assert rendered.media_at[0] == 0  # in front of everything, as in the published models
    places = [tiny.decode(rendered.ids[:at], skip_special_tokens=True) for at in rendered.media_at]
    assert places == ["", "compare it", "compare it and"]
    assert read.turns([Turn("user", ("hi",))]).media_at == []


def test_films_in_front_of_a_turn_go_where_the_prompt_template_says():
    read = rendering(chatml(), template="see {video}: {prompt}")
    shown = read.turns([Turn("user", (Shown(0), Shown(1), "who", Shown(0), "?")), *TALK[1:2],
                        Turn("user", ("why?",))])  # fmt: skip
    text = read.tokenizer.decode([i if i != FILM else 0 for i in with_films(shown)])
    unseen = read.tokenizer.decode(shown.ids)
    assert re.search(r"see (\S+)\1: who.*\?", text.replace(read.tokenizer.decode([0]), "F"))
    assert "see : why?" in unseen


@pytest.mark.parametrize("chat", [None, CHATML])
def test_a_turn_that_is_too_long_loses_its_beginning_and_no_film(chat):
    read = rendering(load_tokenizer(None), chat, max_prompt_tokens=8)
    long = ("movie " * 20, Shown(0), "movie " * 20, Shown(0), "comedy zebra")
    rendered = read.turns([Turn("user", long)])
    assert len(rendered.media_at) == 2
    assert len(rendered) <= read.longest_prompt
    assert "comedy zebra" in read.tokenizer.decode(rendered.ids)
    assert "comedy zebra" in read.tokenizer.decode(rendered.ids[rendered.media_at[1] :])


def test_an_answer_that_is_too_long_loses_its_end_and_nothing_behind_it_moves():
    short, whole = (rendering(chatml(), max_answer_tokens=n) for n in (3, 64))
    turns = learning(TALK[:3])
    (start, stop), (_, end) = short.turns(turns).learned[0], whole.turns(turns).learned[0]
    assert stop - start == 3
    assert short.turns(turns).ids[:stop] == whole.turns(turns).ids[:stop]
    assert short.turns(turns).ids[stop:] == whole.turns(turns).ids[end:]
    gone = end - stop
    moved = [at - gone if at > stop else at for at in whole.turns(turns).media_at]
    assert short.turns(turns).media_at == moved


@pytest.mark.parametrize(
    ("template", "turns", "said"),
    [
        ("{{ raise_exception('no system') if messages[0].role == 'system' }}" + CHATML,
         (SYSTEM, *TALK[:1]), r"turns of system, user .*no system"),
        (CHATML.replace("{% for", "{% if messages[0].role == 'system' %}{% set messages = "
                        "messages[1:] %}{% endif %}{% for", 1),
         (SYSTEM, *TALK[:1]), r"text of each turn once, in order; of system, user it makes"),
        (CHATML.replace("in messages", "in messages[-2:]"), TALK,
         r"text of each turn once, in order; of user, assistant, user, assistant, user it makes"),
    ],
)  # fmt: skip
def test_a_template_without_a_place_for_a_turn_is_refused_when_there_is_one(template, turns, said):
    read = rendering(chatml(), template)
    assert read.turns(TALK[:1]).ids
    with pytest.raises(ConfigError, match=said):
        read.turns(turns)


def test_a_template_may_write_former_turns_otherwise_than_the_last():
    thinking = CHATML.replace(
        "{{ m.content }}",
        "{% if m.role == 'assistant' and loop.last %}<think>\n</think>\n{% endif %}{{ m.content }}",
    )
    read = rendering(chatml(), thinking)
    text = read.tokenizer.decode(read.turns(TALK[:4]).ids)
    assert text.count("<think>") == 1
    assert text.endswith("assistant\n<think>\n</think>\nthe wife of his friend asks<|im_end|>")


def test_a_template_is_run_once_for_an_order_of_roles(monkeypatch):
    runs = []
    monkeypatch.setattr(chat, "rendered", lambda *a, own=chat.rendered: runs.append(a) or own(*a))
    read = rendering(chatml())
    for talk in [*asking(["hi", "why?"], ["comedy", "zebra"]), *asking(["who?"])]:
        read.turns(talk.turns)
    assert len(runs) == 1
    for text in ("hi", "why?"):
        read.turns([*TALK[:4], Turn("user", (text,))])
    assert len(runs) == 2


@pytest.mark.parametrize("text", [f"a {MARK}", f"{MARK}1", f"1{MARK} a"])
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_no_text_can_complete_the_name_of_a_control_token(text, role):
    turns = [Turn("user", ("hi",)), Turn("assistant", (text,))]
    with pytest.raises(ConfigError, match=r"holds U\+E0F3"):
        rendering(chatml()).turns(turns if role == "assistant" else [Turn("user", (text,))])
