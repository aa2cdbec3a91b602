"""A film watched token by token is the conversation read in one go."""

from itertools import chain

import pytest
import torch
from chat_tokenizers import chatml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import WIDTH, build

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import FramesOfLooks, MediaTokens
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Shown, Turn
from mmavlm.model.heads import FrameHeads
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.model.llm.stream_rows import read_streams
from mmavlm.model.token_tables import TooLongError

FILM = Medium(medium_id="film", source="film.mp4")
K = 2  # tokens of a look
QUERIES = ["what is the genre?", "tell me", "why?"]
SHORT = Generation(num_beams=1, num_answers=1, max_new_tokens=5)


def model(kind, **prompt):
    tokenizer = chatml()
    size = {"vocab_size": len(tokenizer), "bos_token_id": None, "pad_token_id": None}
    built = build(kind, **size, eos_token_id=tokenizer.eos_token_id).eval()
    return PromptedLanguageModel(built, tokenizer, **prompt).eval()


@pytest.fixture(
    scope="module",
    params=[("llama", None), ("gpt2", None), ("llama", "turn"), ("gpt2", "frame")],
    ids=["llama", "gpt2", "llama, times of streams", "gpt2, times of frames"],
)
def llm(request):
    kind, times = request.param
    return model(kind, chat_template="chatml", stream_times=times)


@pytest.fixture(scope="module")
def heads():
    torch.manual_seed(0)
    made = FrameHeads(("informative", "relevance"), WIDTH)
    made.calibrate("relevance", 0.5, -1.0)
    return made


def looks(count, seed=0):
    return torch.randn(count, K, WIDTH, generator=torch.Generator().manual_seed(seed))


def at_s(frame):
    """When a frame is, in a film of uneven frame rate."""
    return round(frame * 0.4 + frame % 3 * 0.05, 2)


def as_media(tokens, latest):
    """The looks of one film (T,K,Dl) as media of one conversation."""
    frames = FramesOfLooks(K, [range(len(tokens))], latest)
    return MediaTokens(tokens.flatten(0, 1)[None], [1], looks=frames)


def watched(session, events, tokens):
    """The states at all frames, the answers, and the conversation of a film with `events`.

    Answers come with the conversation that they answer.
    """
    states, answers, turns, frame = [], [], [], 0
    for event in events:
        if event == "frame":
            states.append(session.see(tokens[frame], at_s(frame)))
            if turns and turns[-1].role == "stream":
                start = turns.pop().parts[0].frames[0]
            else:
                start = frame
            frame += 1
            times_s = tuple(map(at_s, range(start, frame)))
            turns.append(Turn("stream", (Shown(0, (start, frame), times_s),)))
        elif event in ("kept", "removed"):
            answer = session.reply(SHORT, keep=event == "kept")
            answers.append((Conversation(tuple(turns), (FILM,)), answer))
            if event == "kept" and answer.text:
                turns.append(Turn("assistant", (answer.text,)))
        else:
            turns.append(Turn("user", (event,)))
            session.say(turns[-1])
    return states, answers, Conversation(tuple(turns), (FILM,))


def in_order(events):
    """Events as a duet has them: an answer follows frames, and one of them is kept."""
    kept, answerable = [], False
    for event in events:
        if event in ("kept", "removed") and not answerable:
            continue
        answerable = event == "frame" or (answerable and event == "removed")
        kept.append(event)
    return kept if "kept" in kept[:-1] else [*kept, "frame", "kept", "frame", "removed"]


EVENTS = st.lists(
    st.sampled_from(["frame"] * 4 + ["kept"] * 2 + ["removed"] * 2 + QUERIES),
    min_size=2,
    max_size=12,
).map(in_order)


@torch.no_grad()
def check_against_the_conversation_read_in_one_go(llm, heads, latest, events):
    """Ids, states, scores of heads and answers are the same; how many answers there were."""
    tokens = looks(len(events))
    session = llm.watching(latest=latest)
    states, answers, talk = watched(session, events, tokens)
    whole = read_streams(llm, [talk], as_media(tokens[: len(states)], latest))
    order = sorted(range(len(states)), key=lambda n: whole.frames[n].frame)
    assert [whole.frames[n].frame for n in order] == [*range(len(states))]
    states = torch.stack(states)
    torch.testing.assert_close(states, whole.hidden[order], atol=1e-4, rtol=1e-4)
    scores = heads.scores(states), heads.scores(whole.hidden[order])
    torch.testing.assert_close(*scores, atol=1e-4, rtol=0)
    ids = list(chain.from_iterable(map(ids_of, session._held)))
    expected = llm.rendering.turns(talk.turns, latest=latest).ids
    assert ids == expected[: len(ids)]
    assert expected[len(ids) :] in ([], llm.rendering.turn_by_turn.closing("stream"))
    for asked, answer in answers:
        seen = as_media(tokens[: asked.turns[-1].parts[0].frames[1]], latest)
        one = llm.generate([asked], seen, SHORT)[0][0]
        assert answer.text == one.text
        assert answer.log_prob == pytest.approx(one.log_prob, abs=1e-4)


def ids_of(held):
    return [*held.front, *chain.from_iterable(look.front for look in held.looks), *held.behind]


SCHEDULES = {"deadline": None, "derandomize": True,
             "suppress_health_check": [HealthCheck.function_scoped_fixture]}  # fmt: skip


@pytest.mark.parametrize("latest", [False, True], ids=["frames", "memory"])
@settings(max_examples=6, **SCHEDULES)
@given(events=EVENTS)
def test_a_film_that_is_watched_is_the_conversation_read_in_one_go(llm, heads, latest, events):
    check_against_the_conversation_read_in_one_go(llm, heads, latest, events)


@pytest.mark.slow
@pytest.mark.parametrize("latest", [False, True], ids=["frames", "memory"])
@settings(max_examples=75, **SCHEDULES)
@given(events=EVENTS)
def test_so_it_is_over_hundreds_of_schedules(llm, heads, latest, events):
    check_against_the_conversation_read_in_one_go(llm, heads, latest, events)


def test_a_removed_answer_leaves_no_trace(llm):
    tokens = looks(3)
    plain, asked = llm.watching(), llm.watching()
    for session in (plain, asked):
        session.say(Turn("user", (QUERIES[0],)))
        session.see(tokens[0], at_s(0))
    asked.reply(SHORT, keep=False)
    assert asked.turns == plain.turns
    for n, look in enumerate(tokens[1:], start=1):
        states = [session.see(look, at_s(n)) for session in (asked, plain)]
        torch.testing.assert_close(*states, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("latest", [False, True], ids=["frames", "memory"])
def test_a_window_forgets_the_oldest_frames_and_answers_and_keeps_questions(llm, latest):
    window = 130
    session = llm.watching(window=window, latest=latest)
    session.say(Turn("system", ("you see a movie",)))
    session.say(Turn("user", (QUERIES[0],)))
    lengths = []
    for n, look in enumerate(looks(60)):
        state = session.see(look, at_s(n))
        if n % 7 == 6:
            session.reply(SHORT, keep=True)
        if n == 30:
            session.say(Turn("user", (QUERIES[1],)))
        lengths.append(session.num_tokens)
        if n % 10 == 9 and session.turns[-1].role == "stream":
            talk = Conversation(session.turns, (FILM,))
            held = torch.stack(session.looks)
            with torch.no_grad():
                whole = read_streams(llm, [talk], as_media(held, latest))
            last = max(range(len(whole.frames)), key=lambda i: whole.frames[i].frame)
            torch.testing.assert_close(state, whole.hidden[last], atol=1e-4, rtol=1e-4)
    assert max(lengths) <= window
    assert len(session.looks) < 60
    said = [turn.text for turn in session.turns if turn.role in ("system", "user")]
    assert said == ["you see a movie", *QUERIES[:2]]


def test_what_has_to_be_kept_and_exceeds_the_window_is_refused(llm):
    session = llm.watching(window=20)
    with pytest.raises(ConfigError, match="more than window=20 holds"):
        watched(session, [QUERIES[0] * 9], looks(0))


@pytest.mark.parametrize("latest", [False, True], ids=["frames", "memory"])
def test_of_questions_that_fill_the_window_the_oldest_goes_and_the_log_says_so(llm, latest, caplog):
    window = 120
    session = llm.watching(window=window, latest=latest)
    session.say(Turn("system", ("you see a movie",)))
    asked = [f"{QUERIES[n % 3]} {n}" for n in range(30)]
    for n, look in enumerate(looks(30)):
        session.say(Turn("user", (asked[n],)))
        if n % 4 == 3:
            session.reply(SHORT)
        state = session.see(look, at_s(n))
        assert session.num_tokens <= window
        talk = Conversation(session.turns, (FILM,))  # which checks their order
    with torch.no_grad():
        whole = read_streams(llm, [talk], as_media(torch.stack(session.looks), latest))
    last = max(range(len(whole.frames)), key=lambda i: whole.frames[i].frame)
    torch.testing.assert_close(state, whole.hidden[last], atol=1e-4, rtol=1e-4)
    said = [turn.text for turn in session.turns if turn.role == "user"]
    assert said == asked[-len(said) :]
    assert session.turns[0].role == "system"
    assert f"forgotten is: {asked[0]}" in caplog.text


def test_a_model_with_few_positions_says_so():
    built = build("gpt2", n_positions=40, vocab_size=len(chatml()), bos_token_id=None).eval()
    session = PromptedLanguageModel(built, chatml()).watching()
    with pytest.raises(TooLongError, match="40 positions"):
        watched(session, ["frame"] * 40, looks(40))


def test_a_failure_in_mid_frame_is_mended_at_the_next(llm, monkeypatch):
    tokens = looks(3)
    plain, failing = llm.watching(), llm.watching()
    for session in (plain, failing):
        session.see(tokens[0], at_s(0))
    with monkeypatch.context() as patch:
        patch.setattr(llm.model.base_model, "forward", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            failing.see(tokens[1], at_s(1))
    plain.see(tokens[1], at_s(1))
    states = [session.see(tokens[2], at_s(2)) for session in (failing, plain)]
    torch.testing.assert_close(*states, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("times", ["turn", "frame"])
def test_a_model_that_reads_times_refuses_a_frame_without_one_and_stays_as_it_was(times):
    llm = model("llama", chat_template="chatml", stream_times=times)
    tokens, session, plain = looks(2), llm.watching(), llm.watching()
    session.see(tokens[0], 0.0)
    with pytest.raises(ConfigError, match=f"stream_times={times}"):
        session.see(tokens[1])
    plain.see(tokens[0], 0.0)
    torch.testing.assert_close(session.see(tokens[1], 0.5), plain.see(tokens[1], 0.5))
    talk = Conversation((Turn("stream", (Shown(0, (0, 2)),)),), (FILM,))
    with pytest.raises(ConfigError, match="is not known"):
        read_streams(llm, [talk], as_media(tokens, latest=False))


def test_a_model_that_reads_no_times_needs_none_and_makes_nothing_of_them():
    llm = model("llama", chat_template="chatml")
    told, untold = llm.watching(), llm.watching()
    for n, look in enumerate(looks(3)):
        assert torch.equal(told.see(look, at_s(n)), untold.see(look))
    assert told.turns != untold.turns


def test_without_a_stream_there_are_no_frames_to_score(llm):
    tokens = looks(2)
    talk = Conversation.question(FILM, "why?", "so")
    with pytest.raises(DataError, match="choose data with streams"):
        read_streams(llm, [talk], as_media(tokens, latest=False))


def test_tokens_that_are_of_no_frame_cannot_be_scored(llm):
    talk = Conversation((Turn("stream", (Shown(0, (0, 2)),)),), (FILM,))
    with pytest.raises(ConfigError, match="temporal=every_frame"):
        read_streams(llm, [talk], MediaTokens(looks(2).flatten(0, 1)[None], [1]))


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_model_with_an_encoder_cannot_watch(kind):
    tokenizer = chatml()
    built = build(kind, vocab_size=len(tokenizer))
    with pytest.raises(ConfigError, match="cannot watch"):
        PromptedLanguageModel(built, tokenizer).watching()
