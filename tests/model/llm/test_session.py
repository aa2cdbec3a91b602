"""An LLM in mid-conversation answers as it does for the entire conversation."""

import pytest
import torch
from chat_tokenizers import CHATS
from models import FAMILIES, FILM, build

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import MediaTokens
from mmavlm.core.turns import Shown, Turn
from mmavlm.model.llm import PromptedLanguageModel, Session
from mmavlm.model.llm.heard import Heard
from mmavlm.model.text import load_tokenizer
from mmavlm.model.token_tables import TooLongError

CANDIDATES = ["comedy", "ex-boyfriend ex-girlfriend", "zebra"]
QUESTIONS = [
    (Shown(0), "what is the genre of the movie?"),
    ("why does the man", Shown(1), "sit in the prison?"),
    ("who is she?",),
]
SAID = ["a comedy", "the wife of his friend asks"]
SEARCHES = [
    Generation(num_beams=1, max_new_tokens=4),
    Generation(num_beams=3, max_new_tokens=4, repetition_penalty=1.5, length_penalty=0.5),
]
THREE = Generation(num_beams=1, min_new_tokens=3, max_new_tokens=3)


def wrap(kind, chat=None, **settings):
    tokenizer = CHATS[chat]() if chat else load_tokenizer(None)
    model = build(kind, vocab_size=len(tokenizer), **settings).requires_grad_(False)
    return PromptedLanguageModel(model, tokenizer, chat_template="auto" if chat else None)


CHATTING = [("llama", "chatml"), ("mistral", "gemma"), ("gpt2", "llama2"), ("t5", "chatml")]


@pytest.fixture(scope="module", params=[*((kind, None) for kind in FAMILIES), *CHATTING],
                ids=lambda pair: f"{pair[0]}-{pair[1]}")  # fmt: skip
def llm(request):
    return wrap(*request.param)


def films(llm):
    """Two films, the second of fewer tokens."""
    tokens = torch.randn(2, 5, llm.width, generator=torch.Generator().manual_seed(0))
    return MediaTokens(tokens, [2], torch.arange(5) < torch.tensor([5, 3])[:, None])


def one(media, number):
    """One of the films, to append."""
    mask = media.mask[number : number + 1]
    return MediaTokens(media.tokens[number : number + 1], [1], mask)


def whole(count):
    """All turns up to the question of this number, as a conversation."""
    turns = []
    for number in range(count):
        turns.append(Turn("user", QUESTIONS[number]))
        turns.append(Turn("assistant", (SAID[number],)))
    shown = 2 if count else 1
    return Conversation((*turns, Turn("user", QUESTIONS[count])), (FILM,) * shown)


def ask(session, media, number):
    """The question of this number, and in front of it the answer to the one before."""
    if number:
        session.append(Turn("assistant", (SAID[number - 1],)))
    shown = one(media, number) if number < 2 else None
    session.append(Turn("user", QUESTIONS[number]), media=shown)


def same(found, expected):
    assert found.text == expected.text
    assert found.log_prob == pytest.approx(expected.log_prob, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("generation", SEARCHES, ids=["greedy", "beams"])
def test_a_session_answers_each_question_as_the_stateless_path_does(llm, generation):
    media, session = films(llm), llm.session()
    for number in range(3):
        ask(session, media, number)
        talk = whole(number)
        seen = media if number else one(media, 0)
        same(session.reply(generation), llm.generate([talk], seen, generation)[0][0])
        expected = llm.rank([talk], seen, CANDIDATES)[0]
        torch.testing.assert_close(session.rank(CANDIDATES), expected, rtol=1e-5, atol=1e-5)


def test_answers_leave_no_trace(llm):
    media, session = films(llm), llm.session()
    ask(session, media, 0)
    first = session.reply(SEARCHES[1])
    session.rank(CANDIDATES, with_eos=False)
    session.reply(SEARCHES[0])
    same(session.reply(SEARCHES[1]), first)


def test_back_at_a_mark_nothing_of_what_came_behind_is_left(llm):
    media, session = films(llm), llm.session()
    start = session.mark()
    ask(session, media, 0)
    same_question, scores = session.mark(), session.rank(CANDIDATES)
    ask(session, media, 1)
    session.reply(SEARCHES[0])
    session.back(same_question)
    assert session.turns == whole(0).turns
    torch.testing.assert_close(session.rank(CANDIDATES), scores, rtol=1e-5, atol=1e-5)
    session.back(start)
    assert session.turns == ()
    # another film of as many tokens is not taken for the one that was read
    session.append(Turn("user", QUESTIONS[0]), media=MediaTokens(-media.tokens[:1], [1]))
    expected = llm.rank([whole(0)], MediaTokens(-media.tokens[:1], [1]), CANDIDATES)[0]
    torch.testing.assert_close(session.rank(CANDIDATES), expected, rtol=1e-5, atol=1e-5)


def read_tokens(llm, act):
    """How many tokens of a row the first layer reads while something is done."""
    ends = ("q_proj", "c_attn")
    layer = next(m for name, m in llm.model.named_modules() if name.endswith(ends))
    counts = []
    hook = layer.register_forward_hook(lambda m, inputs, out: counts.append(inputs[0].shape[1]))
    try:
        act()
    finally:
        hook.remove()
    return sum(counts)


@pytest.mark.parametrize(
    ("kind", "chat"), [*((k, None) for k in FAMILIES if k not in ("t5", "bart")), *CHATTING[:3]]
)
def test_a_question_pays_for_its_own_tokens_alone(kind, chat):
    llm = wrap(kind, chat)
    media, session, lengths = films(llm), llm.session(), []
    for number in range(3):
        ask(session, media, number)
        row = llm.rendering.turns(session.turns)
        lengths.append(len(row) + sum([5, 3][: len(row.media_at)]))
        before = lengths[-2] if number else 0
        own = lengths[-1] - before
        assert read_tokens(llm, lambda: session.rank([""])) == own
        # the last token again, where the answer begins, for the beams and for their scores
        assert read_tokens(llm, lambda: session.reply(THREE)) == 1 + 3 + 2


def test_a_read_that_fails_is_forgotten():
    llm = wrap("llama")
    media, session = films(llm), llm.session()
    ask(session, media, 0)
    expected = session.rank(CANDIDATES)
    ask(session, media, 1)
    second = llm.model.model.layers[1]
    hook = second.register_forward_pre_hook(lambda *a: (_ for _ in ()).throw(MemoryError()))
    mark = session.mark()
    with pytest.raises(MemoryError):
        session.reply()
    hook.remove()
    torch.testing.assert_close(
        session.rank(CANDIDATES), llm.rank([whole(1)], media, CANDIDATES)[0], rtol=1e-5, atol=1e-5
    )
    session.back(mark)
    assert expected.isfinite().all()


def test_turns_out_of_order_and_views_that_are_not_shown_are_refused():
    llm = wrap("llama")
    session = Session(llm)
    with pytest.raises(DataError, match="nothing is asked; append a turn of the user"):
        session.reply()
    session.append(Turn("system", ("answer in a word",)))
    with pytest.raises(DataError, match="turn 1 of a conversation is the assistant's"):
        session.append(Turn("assistant", ("hi",)))
    with pytest.raises(ValueError, match="show media at 1 places, but there are tokens of 0 views"):
        session.append(Turn("user", (Shown(0), "who?")))
    session.append(Turn("user", ("who?",)))
    left = session.mark()
    session.append(Turn("assistant", ("hi",)))
    with pytest.raises(DataError, match="nothing is asked"):
        session.rank(CANDIDATES)
    later = session.mark()
    session.back(left)
    with pytest.raises(ValueError, match="left the point of this mark"):
        session.back(later)


def test_a_session_without_positions_left_says_so_and_goes_on():
    llm = wrap("gpt2", n_positions=40)
    session = llm.session()
    session.append(Turn("user", ("hi",)))
    mark, scores = session.mark(), session.rank(CANDIDATES)
    session.append(Turn("assistant", ("movie " * 40,)), Turn("user", ("why?",)))
    with pytest.raises(TooLongError, match="40 positions"):
        session.reply()
    session.back(mark)
    torch.testing.assert_close(session.rank(CANDIDATES), scores, rtol=1e-5, atol=1e-5)


def test_an_answer_is_heard_as_it_grows_and_ends_as_the_reply(llm):
    media, session, texts = films(llm), llm.session(), [""]
    ask(session, media, 0)
    ask(session, media, 1)
    reply = session.reply(THREE, texts.append)
    same(reply, session.reply(THREE))
    assert texts[-1] == reply.text
    assert len(texts) <= 1 + THREE.max_new_tokens
    assert [len(text) for text in texts] == sorted({len(text) for text in texts})


def test_a_letter_of_several_tokens_is_heard_once_it_is_complete():
    llm, texts = wrap("gpt2", "chatml"), []
    listening = Heard(llm.answers, texts.append)
    listening.put(torch.zeros(1, 0, dtype=torch.long))
    ids = llm.answers.ids("größer 🎈")
    for token in ids:
        listening.put(torch.tensor([token]))
    listening.end()
    assert texts[-1] == "größer 🎈"
    assert len(texts) < len(ids)
    assert all(texts[-1].startswith(text) for text in texts)


def test_beams_are_not_heard(llm):
    session = llm.session()
    ask(session, films(llm), 0)
    with pytest.raises(ConfigError, match="num_beams=3: which beam is the answer shows at its end"):
        session.reply(SEARCHES[1], print)


DRAWN = {"num_beams": 1, "min_new_tokens": 6, "max_new_tokens": 6, "temperature": 1.0}


def test_a_drawn_answer_depends_on_the_seed_alone_and_is_that_of_the_stateless_path(llm):
    media, session = films(llm), llm.session()
    ask(session, media, 0)
    state = torch.get_rng_state()
    answers = [session.reply(Generation(**DRAWN, seed=seed)) for seed in (0, 0, 1, 2, 3)]
    assert torch.equal(torch.get_rng_state(), state)
    same(answers[1], answers[0])
    assert len({answer.log_prob for answer in answers}) > 1
    [[expected]] = llm.generate([whole(0)], one(media, 0), Generation(**DRAWN))
    same(answers[0], expected)


def test_the_smallest_share_draws_what_greedy_search_finds():
    llm = wrap("llama")
    session = llm.session()
    ask(session, films(llm), 0)
    greedy = Generation(**DRAWN | {"temperature": 0.0})
    same(session.reply(Generation(**DRAWN, top_p=1e-6)), session.reply(greedy))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0 must be 0"),
        ({"temperature": 0.5, "top_p": 0.0}, "top_p=0.0 above 0"),
        ({"temperature": 0.5, "num_beams": 2}, "set num_beams=1, or temperature=0"),
        ({"top_p": 0.5}, "top_p=0.5 is of sampling"),
    ],
)
def test_sampling_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Generation(**{"num_beams": 1} | settings)
