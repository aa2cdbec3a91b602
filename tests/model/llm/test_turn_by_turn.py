"""Conversations in which a film runs, as ids."""

import pytest
import torch
from chat_tokenizers import FAMILIES, LLAMA3, QWEN2, chatml, llama2, llama3

from mmavlm.core.chat_formats import CHAT_FORMATS
from mmavlm.core.errors import ConfigError
from mmavlm.core.turns import Line, Shown, Turn
from mmavlm.model.llm.rendering import Rendering

SYSTEM = Turn("system", ("you see a movie",))
QUERY = Turn("user", ("what is the genre?",))
ONE_BY_ONE = {
    "qwen2": (chatml, QWEN2),
    "llama3": (llama3, LLAMA3),
    "chatml": (chatml, "chatml"),
    "no template": (llama2, "none"),
}


def rendering(make, chat, **settings):
    lengths = {"max_prompt_tokens": 128, "max_answer_tokens": 64, "continues": True}
    return Rendering(make(), template="{prompt}", chat=chat, **lengths | settings)


def stream(start, stop):
    return Turn("stream", (Shown(0, (start, stop)),))


def says(text, learned=True):
    return Turn("assistant", (text,), learned=learned)


TALK = [QUERY, stream(0, 3), says("a comedy"), stream(3, 4), QUERY, QUERY, stream(4, 6), says("2")]


@pytest.fixture(scope="module", params=ONE_BY_ONE)
def read(request):
    return rendering(*ONE_BY_ONE[request.param])


@pytest.mark.parametrize("front", [[], [SYSTEM]], ids=["alone", "system"])
def test_frames_stand_where_the_film_runs_and_answers_are_learned_with_their_ends(read, front):
    found = read.turns([*front, *TALK])
    assert found.frames == [(0, 3), (3, 4), (4, 6)]
    assert found.num_views == 1
    spans = [found.ids[start:stop] for start, stop in found.learned]
    assert spans == [read.answers.ids("a comedy"), read.answers.ids("2")]
    assert all(
        at <= start for at, (start, _) in zip(found.media_at[::2], found.learned, strict=True)
    )


@pytest.mark.parametrize("name", ["qwen2", "llama3", "chatml"])
@pytest.mark.parametrize("front", [[], [SYSTEM]], ids=["alone", "system"])
def test_the_text_is_the_one_that_the_template_writes(name, front):
    make, chat = ONE_BY_ONE[name]
    read = rendering(make, chat)
    tokenizer = make()
    turns = [*front, *TALK]
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    template = CHAT_FORMATS.get(chat, chat)
    whole = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert read.turns(turns).ids == ids


def test_a_conversation_is_its_turns_one_behind_the_other(read):
    write, ids = read.turn_by_turn, []
    for n, turn in enumerate(TALK):
        if turn.role == "user":
            ids += write.said(turn, first=n == 0)[0]
            continue
        ids += write.opening(turn.role, first=n == 0)
        ids += write.answer(turn.text) if turn.role == "assistant" else []
        ids += write.closing(turn.role)
    assert read.turns(TALK).ids == ids


def test_a_film_may_run_before_anybody_speaks(read):
    found = read.turns([stream(0, 2), says("a comedy")])
    whole = read.turns([QUERY, stream(0, 2), says("a comedy")])
    behind = whole.ids[len(read.turns([QUERY, stream(0, 2)]).ids) :]
    assert found.ids[-len(behind) :] == behind
    if read.tokenizer.bos_token and read.chats:
        assert found.ids[0] == read.tokenizer.bos_token_id


@pytest.mark.parametrize("name", ["llama_2", "mistral", "vicuna"])
def test_a_template_that_knows_no_streams_is_refused(name):
    make, chat = {**{n: f[:2] for n, f in FAMILIES.items()}, "llama_2": (llama2, "llama_2")}[name]
    with pytest.raises(ConfigError, match="choose"):
        rendering(make, chat).turns(TALK)


TIMED = [
    QUERY,
    Turn("stream", (Shown(0, (0, 3), (0.0, 0.5, 1.0)),)),
    says("a comedy"),
    Turn("stream", (Shown(0, (3, 5), (1.5, 2.04)),)),
]


def with_times(name, times):
    return rendering(*ONE_BY_ONE[name], stream_times=times)


@pytest.mark.parametrize("name", ONE_BY_ONE)
@pytest.mark.parametrize("latest", [False, True])
def test_times_that_are_not_to_be_read_change_nothing(name, latest):
    read = with_times(name, None)
    plain = [QUERY, stream(0, 3), says("a comedy"), stream(3, 5)]
    assert read.turns(TIMED, latest=latest) == read.turns(plain)


@pytest.mark.parametrize("name", ONE_BY_ONE)
@pytest.mark.parametrize(
    ("times", "latest", "expected"),
    [
        ("frame", False, {(0, 1): 0.0, (1, 2): 0.5, (2, 3): 1.0, (3, 4): 1.5, (4, 5): 2.04}),
        ("turn", False, {(0, 3): 0.0, (3, 5): 1.5}),
        ("frame", True, {(0, 3): 1.0, (3, 5): 2.04}),
        ("turn", True, {(0, 3): 1.0, (3, 5): 2.04}),
    ],
)
def test_times_stand_in_front_of_frames_as_text(name, times, latest, expected):
    read = with_times(name, times)
    found = read.turns(TIMED, latest=latest)
    assert found.frames == [*expected]
    assert found.num_views == 1
    rest, since = [], 0
    for at, time_s in zip(found.media_at, expected.values(), strict=True):
        ids = read.turn_by_turn.time(time_s, first=True)
        assert read.tokenizer.decode(ids).strip() == f"<{time_s:.1f} seconds>"
        assert found.ids[at - len(ids) : at] == ids
        rest += found.ids[since : at - len(ids)]
        since = at
    assert rest + found.ids[since:] == with_times(name, None).turns(TIMED).ids
    learned = [found.ids[start:stop] for start, stop in found.learned]
    assert learned == [read.answers.ids("a comedy")]


@pytest.mark.parametrize("time_s", [0.15, 0.25, 0.35, 4.1, 3599.95])
def test_times_of_single_precision_are_written_as_those_of_double(time_s):
    write = with_times("chatml", "frame").turn_by_turn
    assert write.time(torch.tensor(time_s).item(), first=True) == write.time(time_s, first=True)


def test_what_is_said_in_a_film_stands_between_the_frames_of_its_stream():
    read = with_times("chatml", "turn")
    parts = (Shown(0, (0, 2), (0.0, 0.5)), Line("the man sits"), Shown(0, (2, 3), (1.0,)))
    found = read.turns([QUERY, Turn("stream", parts)])
    assert found.frames == [(0, 2), (2, 3)]
    between = found.ids[found.media_at[0] : found.media_at[1]]
    assert read.tokenizer.decode(between).strip() == "the man sits"
    newest = read.turns([QUERY, Turn("stream", parts)], latest=True)
    assert newest.frames == [(0, 3)]
    assert "the man sits" in read.tokenizer.decode(newest.ids[: newest.media_at[0]])


def test_times_are_written_in_one_of_the_known_ways():
    with pytest.raises(ConfigError, match="one of turn, frame"):
        with_times("chatml", "each").turns(TIMED)
