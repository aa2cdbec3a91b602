"""A film watched token by token is the conversation read in one go."""

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


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def llm(request):
    return model(request.param, chat_template="chatml")


def looks(count, seed=0):
    return torch.randn(count, K, WIDTH, generator=torch.Generator().manual_seed(seed))


def as_media(tokens, latest):
    """The looks of one film (T,K,Dl) as media of one conversation."""
    frames = FramesOfLooks(K, [range(len(tokens))], latest)
    return MediaTokens(tokens.flatten(0, 1)[None], [1], looks=frames)


def watched(session, events, tokens):
    """The states at all frames, and the conversation, of a film that is watched with `events`."""
    states, turns, frame = [], [], 0
    for event in events:
        if event == "frame":
            states.append(session.see(tokens[frame]))
            if turns and turns[-1].role == "stream":
                start = turns.pop().parts[0].frames[0]
            else:
                start = frame
            frame += 1
            turns.append(Turn("stream", (Shown(0, (start, frame)),)))
        elif event in ("kept", "removed"):
            answer = session.reply(SHORT, keep=event == "kept")
            if event == "kept" and answer.text:
                turns.append(Turn("assistant", (answer.text,)))
        else:
            turns.append(Turn("user", (event,)))
            session.say(turns[-1])
    return states, Conversation(tuple(turns), (FILM,))


def in_order(events):
    """Events as a duet has them: an answer follows frames, and there is at least one frame."""
    kept, answerable = [], False
    for event in events:
        if event in ("kept", "removed") and not answerable:
            continue
        answerable = event == "frame" or (answerable and event == "removed")
        kept.append(event)
    return kept if "frame" in kept else [*kept, "frame"]


EVENTS = st.lists(
    st.sampled_from(["frame", "frame", "frame", "kept", "removed", *QUERIES]), max_size=12
).map(in_order)


@pytest.mark.parametrize("latest", [False, True], ids=["frames", "memory"])
@settings(
    max_examples=50, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(events=EVENTS)
def test_ids_and_states_are_those_of_the_conversation_read_in_one_go(llm, latest, events):
    tokens = looks(len(events))
    session = llm.watching(latest=latest)
    with torch.no_grad():
        states, talk = watched(session, events, tokens)
        whole = read_streams(llm, [talk], as_media(tokens[: len(states)], latest))
    order = sorted(range(len(states)), key=lambda n: whole.frames[n].frame)
    assert [whole.frames[n].frame for n in order] == [*range(len(states))]
    torch.testing.assert_close(torch.stack(states), whole.hidden[order], atol=1e-4, rtol=1e-4)
    ids = [i for held in session._held for i in (*held.front, *held.behind)]
    expected = llm.rendering.turns(talk.turns).ids
    assert ids == expected[: len(ids)]
    assert expected[len(ids) :] in ([], llm.rendering.turn_by_turn.closing("stream"))


@pytest.mark.parametrize("latest", [False, True], ids=["frames", "memory"])
def test_an_answer_is_that_of_the_conversation_read_in_one_go(llm, latest):
    tokens = looks(4, seed=3)
    session = llm.watching(latest=latest)
    _, talk = watched(session, ["tell me", "frame", "frame", "kept", "frame", "frame"], tokens)
    again = session.reply(SHORT, keep=False)
    media = as_media(tokens, latest)
    # the first view of a memory's film stands where it was read last
    one = llm.generate([talk], media, SHORT)[0][0]
    assert again.text == one.text
    assert again.log_prob == pytest.approx(one.log_prob, abs=1e-3)


def test_a_removed_answer_leaves_no_trace(llm):
    tokens = looks(3)
    plain, asked = llm.watching(), llm.watching()
    for session in (plain, asked):
        session.say(Turn("user", (QUERIES[0],)))
        session.see(tokens[0])
    asked.reply(SHORT, keep=False)
    assert asked.turns == plain.turns
    for look in tokens[1:]:
        torch.testing.assert_close(asked.see(look), plain.see(look), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("latest", [False, True], ids=["frames", "memory"])
def test_a_window_forgets_the_oldest_frames_and_answers_and_keeps_questions(llm, latest):
    session = llm.watching(window=90, latest=latest)
    session.say(Turn("system", ("you see a movie",)))
    session.say(Turn("user", (QUERIES[0],)))
    lengths = []
    for n, look in enumerate(looks(60)):
        state = session.see(look)
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
    assert max(lengths) <= 90
    said = [turn.text for turn in session.turns if turn.role in ("system", "user")]
    assert said == ["you see a movie", *QUERIES[:2]]


def test_what_has_to_be_kept_and_exceeds_the_window_is_refused(llm):
    session = llm.watching(window=20)
    with pytest.raises(ConfigError, match="more than window=20 holds"):
        watched(session, [QUERIES[0]] * 9, looks(0))


def test_a_model_with_few_positions_says_so():
    built = build("gpt2", n_positions=40, vocab_size=len(chatml()), bos_token_id=None).eval()
    session = PromptedLanguageModel(built, chatml()).watching()
    with pytest.raises(TooLongError, match="40 positions"):
        watched(session, ["frame"] * 40, looks(40))


def test_a_failure_in_mid_frame_is_mended_at_the_next(llm, monkeypatch):
    tokens = looks(3)
    plain, failing = llm.watching(), llm.watching()
    for session in (plain, failing):
        session.see(tokens[0])
    with monkeypatch.context() as patch:
        patch.setattr(llm.model.base_model, "forward", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            failing.see(tokens[1])
    plain.see(tokens[1])
    torch.testing.assert_close(failing.see(tokens[2]), plain.see(tokens[2]), atol=1e-5, rtol=1e-5)


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
