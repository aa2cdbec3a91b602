"""Streams: films that run while others speak."""

from pathlib import Path

import pytest
import torch

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import DataError
from mmavlm.core.medium import Medium
from mmavlm.core.streams import labels_of, silent, streamed, times_of
from mmavlm.core.turns import FrameLabels, Shown, Turn

FILM = Medium(medium_id="film", source=Path("film.mp4"))
QUERY = Turn("user", ("Tell me.",))
AT_2_FPS = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


def stream(until_s=None, frames=None, **labels):
    heads = tuple(FrameLabels(head, spans) for head, spans in labels.items())
    return Turn("stream", (Shown(0, frames),), until_s=until_s, labels=heads)


def says(text):
    return Turn("assistant", (text,), learned=True)


def talk(*turns):
    return Conversation(turns, (FILM,))


def shown(conversation):
    """What stands where: frames of streams, the texts of others."""
    return [turn.text or turn.parts[0].frames for turn in conversation.turns]


def test_the_assistant_speaks_behind_the_frame_at_its_time_and_the_user_in_front_of_it():
    told = talk(QUERY, stream(1.2), says("A"), stream(2.0), QUERY, stream())
    assert shown(streamed(told, [AT_2_FPS])) == ["Tell me.", (0, 4), "A", "Tell me.", (4, 7)]
    early = talk(stream(0.0), QUERY, stream(0.0), says("A"), stream())
    assert shown(streamed(early, [AT_2_FPS])) == ["Tell me.", (0, 1), "A", (1, 7)]


def test_of_two_answers_at_one_frame_the_second_stays():
    told = talk(QUERY, stream(1.2), says("A"), stream(1.4), says("B"))
    assert shown(streamed(told, [AT_2_FPS])) == ["Tell me.", (0, 4), "B"]


def test_what_is_said_behind_the_last_frame_is_left_out_and_awaited_no_more():
    labels = {"informative": ((3.2, 4.5),), "relevance": ((2.5, 4.5),)}
    told = talk(QUERY, stream(1.0), says("A"), stream(4.5, **labels), says("B"), stream())
    cut = streamed(told, [AT_2_FPS])
    assert shown(cut) == ["Tell me.", (0, 3), "A", (3, 7)]
    assert labels_of(cut.turns[-1], AT_2_FPS) == {
        "informative": [0, 0, 0, 0],
        "relevance": [0, 0, 1, 1],
    }


def test_the_frame_behind_which_an_answer_stands_is_informative():
    told = talk(QUERY, stream(1.2, informative=((0.5, 1.2),)), says("A"))
    first = streamed(told, [AT_2_FPS]).turns[1]
    assert labels_of(first, AT_2_FPS) == {"informative": [0, 1, 1, 1]}


def test_so_is_the_last_frame_of_a_film_behind_which_an_answer_is_said():
    told = talk(QUERY, stream(3.4, informative=((3.2, 3.4),)), says("A"), stream())
    assert shown(streamed(told, [AT_2_FPS])) == ["Tell me.", (0, 7), "A"]
    assert labels_of(streamed(told, [AT_2_FPS]).turns[1], AT_2_FPS) == {
        "informative": [0, 0, 0, 0, 0, 0, 1]
    }


def test_times_of_single_precision_are_those_of_the_annotation():
    rounded = torch.tensor([0.0, 4.1, 8.2]).tolist()
    assert rounded[1] < 4.1
    told = talk(QUERY, stream(4.1, informative=((4.1, 4.1),)), says("A"), stream())
    first = streamed(told, [rounded]).turns[1]
    assert first.parts[0].frames == (0, 2)
    assert labels_of(first, rounded) == {"informative": [0, 1]}


def test_streams_between_which_nothing_is_left_become_one():
    told = talk(
        QUERY, stream(0.9, informative=((0.4, 0.9),)), says("A"), stream(2, relevance=((1, 2),)),
        stream_user := QUERY, stream(None, relevance=((2.5, 3),)),
    )  # fmt: skip
    assert stream_user.role == "user"
    assert shown(streamed(told, [AT_2_FPS])) == [
        "Tell me.",
        (0, 3),
        "A",
        (3, 4),
        "Tell me.",
        (4, 7),
    ]


def test_a_stream_is_the_same_behind_json():
    told = streamed(talk(QUERY, stream(1.2, informative=((0.5, 1.2),)), says("A")), [AT_2_FPS])
    assert Conversation.from_json(told.as_json()) == told


def test_a_film_that_goes_on_is_one_view_under_what_was_asked_before_it():
    told = talk(QUERY, stream(frames=(0, 3)), says("A"), stream(frames=(3, 5)))
    (view,) = told.views
    assert (view.medium, view.guide, view.reply) == (0, "Tell me.", "A")
    assert (told.prompt, told.target) == ("Tell me.", "")
    assert told.asked == told


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ((QUERY, stream(), stream()), "expected one of the user or the assistant"),
        ((QUERY, stream(), says("A"), says("B")), "turn 4 of a conversation is the assistant's"),
        ((says("A"), stream()), "turn 1 of a conversation is the assistant's"),
        ((QUERY, stream(frames=(1, 3))), "expected at least one, from frame 0 on"),
        ((stream(frames=(0, 3)), QUERY, stream(frames=(4, 6))), "from frame 3 on"),
    ],
)
def test_turns_out_of_order_are_refused(turns, message):
    with pytest.raises(DataError, match=message):
        talk(*turns)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Turn("stream", (Shown(), "words")), "and no text"),
        (lambda: Turn("stream", (Shown(0), Shown(1))), "frames of one film"),
        (lambda: Turn("user", ("Why?",), until_s=1.0), "only a stream has"),
        (lambda: FrameLabels("relevance", ((2.0, 1.0),)), "a stop that is not before its start"),
    ],
)
def test_what_is_no_stream_is_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_frames_keep_their_times_through_all_that_is_left_out():
    told = talk(QUERY, stream(1.2), says("A"), stream(2.0), QUERY, stream())
    found = streamed(told, [AT_2_FPS])
    assert [times_of(turn) for turn in found.turns if turn.role == "stream"] == [
        (0.0, 0.5, 1.0, 1.5),
        (2.0, 2.5, 3.0),
    ]
    assert times_of(silent(streamed(talk(QUERY, stream(1.2), says("A"), stream()), [AT_2_FPS]))
                    .turns[1]) == tuple(AT_2_FPS)  # fmt: skip
    assert Conversation.from_json(found.as_json()) == found


@pytest.mark.parametrize("frames", [None, (0, 3)])
def test_times_of_other_frames_are_refused(frames):
    with pytest.raises(DataError, match="expected one a frame, or none"):
        Shown(0, frames, (0.0, 0.5))
