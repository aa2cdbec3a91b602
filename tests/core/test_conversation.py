import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.conversation import Conversation, View, num_views
from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.core.medium import FrameGrid, Medium
from mmavlm.core.turns import Shown, Turn


def film(name="a", **settings):
    return Medium(medium_id=name, source=Path(f"{name}.mp4"), **settings)


def user(*parts):
    return Turn("user", parts)


def assistant(text, learned=False):
    return Turn("assistant", (text,), learned)


words = st.text(min_size=1, max_size=9).filter(str.strip)
media = st.builds(
    Medium,
    medium_id=words,
    source=words.map(Path),
    kind=st.sampled_from(["film", "picture", "sound"]),
    start_s=st.floats(0, 99),
    end_s=st.none() | st.floats(99, 999),
    grid=st.none()
    | st.builds(FrameGrid, st.integers(1, 99), st.sampled_from(["windows", "segments"])),
)


@st.composite
def conversations(draw):
    """Each medium is shown at least once, in any turn but the assistant's."""
    shown = draw(st.lists(media, max_size=3))
    turns = draw(st.integers(1, 3))
    places = [draw(st.integers(0, turns - 1)) for _ in shown]
    more = draw(st.lists(st.tuples(st.integers(0, turns - 1), st.sampled_from(range(len(shown)))))
                if shown else st.just([]))  # fmt: skip
    told: list[Turn] = [Turn("system", (draw(words),))] if draw(st.booleans()) else []
    for number in range(turns):
        here = [Shown(m) for m, place in enumerate(places) if place == number]
        here += [Shown(m) for place, m in more if place == number]
        guide = draw(st.none() | words) if here else None
        told.append(replace(user(*draw(st.permutations([*here, draw(words)]))), guide=guide))
        if number < turns - 1 or draw(st.booleans()):
            told.append(assistant(draw(words), draw(st.booleans())))
    return Conversation(tuple(told), tuple(shown))


@given(conversations())
def test_a_conversation_is_what_its_json_says(talk):
    text = json.dumps(talk.as_json())
    assert Conversation.from_json(json.loads(text)) == talk


@given(conversations())
def test_views_are_all_places_that_show_media_with_guide_or_text_and_the_reply_to_it(talk):
    expected = []
    texts = ["".join(p for p in turn.parts if isinstance(p, str)) for turn in talk.turns]
    for number, turn in enumerate(talk.turns):
        replied = [turn.role for turn in talk.turns[number + 1 : number + 2]] == ["assistant"]
        reply = texts[number + 1] if replied else ""
        shown = [part.medium for part in turn.parts if isinstance(part, Shown)]
        guide = texts[number] if turn.guide is None else turn.guide
        expected += [View(medium, guide, reply) for medium in shown]
    assert list(talk.views) == expected
    assert num_views([talk, talk]) == [len(expected)] * 2


@given(conversations(), words)
def test_an_answer_takes_the_place_of_the_last_and_leaves_what_was_asked(talk, text):
    answered = talk.answered(text, learned=True)
    assert answered.asked == talk.asked == answered.asked.asked
    assert (answered.target, answered.prompt) == (text, talk.prompt)
    assert answered.turns[-1].learned
    assert talk.asked.target == ""


def test_a_question_about_a_film_is_a_turn_that_shows_it_and_an_answer_to_learn():
    talk = Conversation.question(film(), "why?", "because")
    assert talk.turns == (user(Shown(0), "why?"), assistant("because", learned=True))
    assert (talk.prompt, talk.target, talk.media) == ("why?", "because", (film(),))


@pytest.mark.parametrize(("medium", "prompt", "parts"), [
    (film(), "", (Shown(0),)), (None, "why?", ("why?",)), (film(), "why?", (Shown(0), "why?")),
])  # fmt: skip
def test_a_question_may_lack_a_film_a_text_or_an_answer(medium, prompt, parts):
    talk = Conversation.question(medium, prompt)
    assert talk.turns == (Turn("user", parts),)
    assert (talk.prompt, talk.target) == (prompt, "")


@pytest.mark.parametrize(("turn", "message"), [
    (("narrator", ("once",)), "role 'narrator'; expected one of system, user, assistant"),
    (("user", ()), "turn of the user is empty; give it a text, or take it out"),
    (("assistant", (" ", "\n")), "turn of the assistant is empty"),
    (("assistant", ("look", Shown(0))), "assistant shows a medium; only other turns can"),
    (("user", ("why?",), True), "turn of the user is learned; only the assistant's can be"),
    (("user", ("why?",), False, "who?"), "the user has a guide, and shows no medium that is seen"),
])  # fmt: skip
def test_a_turn_that_cannot_be_is_refused(turn, message):
    with pytest.raises(DataError, match=message):
        Turn(*turn)


@pytest.mark.parametrize(("turns", "message"), [
    ((), "no turn of the user; give one"),
    ((Turn("system", ("be brief",)),), "no turn of the user; give one"),
    ((assistant("hello"),), "turn 1 .* is the assistant's; expected one of the user"),
    ((user("a"), user("b")), "turn 2 .* is the user's; expected one of the assistant"),
    ((user("a"), Turn("system", ("b",))), "turn 2 of a conversation is the system's"),
    ((Turn("system", ("a",)), Turn("system", ("b",)), user("c")), "turn 1 .* is the system's"),
])  # fmt: skip
def test_turns_that_are_missing_or_out_of_order_are_refused(turns, message):
    with pytest.raises(DataError, match=message):
        Conversation(turns)


@pytest.mark.parametrize(("shown", "count"), [
    ([], 1), ([0], 0), ([1], 1), ([0], 2), ([0, 2], 2), ([0, 1, 2], 2), ([-1], 1), ([0, -1], 2),
])  # fmt: skip
def test_media_that_are_not_shown_and_numbers_that_lead_nowhere_are_refused(shown, count):
    numbers = sorted(set(shown))
    message = rf"with {count} media shows the numbers \[{', '.join(map(str, numbers))}\]"
    with pytest.raises(DataError, match=message):
        Conversation((user("look", *map(Shown, shown)),), (film(),) * count)


def test_a_film_may_be_shown_twice_and_by_the_system():
    turns = (Turn("system", (Shown(0), "watch")), user("why?", Shown(0)))
    assert [view.guide for view in Conversation(turns, (film(),)).views] == ["watch", "why?"]


def test_kinds_of_media_and_grids_that_there_are_not_are_refused():
    with pytest.raises(DataError, match=r"'a' is .* kind 'smell'; .* film, picture, sound"):
        film(kind="smell")
    with pytest.raises(DataError, match="sampled by 'dice'; expected one of windows, segments"):
        FrameGrid(9, "dice")


def without(values, *path):
    """A copy of nested values that lacks what lies at the path."""
    copied = json.loads(json.dumps(values))
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return copied


FULL = Conversation.question(film(grid=FrameGrid(9, "windows")), "why?", "so").as_json()


@pytest.mark.parametrize("values", [
    [], "talk", {}, {"turns": 1}, {"turns": [1]}, {"turns": [{"role": "user", "parts": [1]}]},
    without(FULL, "turns", 0, "role"), without(FULL, "turns", 0, "parts", 0, "medium"),
    without(FULL, "media", 0, "id"), without(FULL, "media", 0, "source"),
    without(FULL, "media", 0, "grid", "frames"),
])  # fmt: skip
def test_json_of_another_form_is_refused_and_what_is_expected_shown(values):
    with pytest.raises(DataError, match=r"no conversation .*; expected media, and turns with"):
        Conversation.from_json(values)


@pytest.mark.parametrize(("media", "message"), [
    ((), "shows 0 media; expected one"), ((film("a"), film("b")), "shows 2 media; expected one"),
])  # fmt: skip
def test_an_item_that_is_not_about_one_film_says_so(media, message):
    turn = user(*(Shown(number) for number in range(len(media))), "why?")
    item = Item(item_id="i", conversation=Conversation((turn,), media), task="open")
    with pytest.raises(DataError, match=f"item 'i' {message}"):
        _ = item.film
    assert item.video_id == (media[0].medium_id if media else "i")


def test_a_question_is_an_item_whose_fields_are_those_of_its_conversation():
    grid = FrameGrid(9, "segments")
    item = Item.question(
        item_id="i", video_id="v", source=Path("v.mp4"), prompt="why?", target="so",
        start_s=1.0, end_s=2.0, grid=grid, task="open", references=("so",), label=3,
    )  # fmt: skip
    expected = Medium(medium_id="v", source=Path("v.mp4"), start_s=1.0, end_s=2.0, grid=grid)
    assert item.film == expected
    assert (item.prompt, item.target, item.video_id, item.label) == ("why?", "so", "v", 3)
    assert replace(item, label=None).conversation is item.conversation
