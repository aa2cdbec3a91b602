"""A conversation with a model about films: what is read when, and a history that changes."""

import json
import wave
from functools import partial

import pytest
import torch
from PIL import Image

from mmavlm.core.contrast import Contrast
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import DataError, VideoError
from mmavlm.core.generation import Generation
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Shown, Turn
from mmavlm.data.collate import collate
from mmavlm.data.dataset import VideoDataset
from mmavlm.data.sound import ClipSettings
from mmavlm.model.contrast_views import NoFilm, Shuffle
from mmavlm.model.memory_views import NoMemory
from mmavlm.run.ask import Ready
from mmavlm.run.chat import Chat, own_medium, read_conversation, save_conversation
from support import tiny_backbone

GREEDY = Generation(num_beams=1, min_new_tokens=3, max_new_tokens=3)
FRAMES = 4


@pytest.fixture(scope="module")
def model():
    backbone = tiny_backbone().eval()
    return Ready(backbone, backbone.llm, torch.device("cpu"), 3)


@pytest.fixture
def chat(model):
    return Chat(model, GREEDY, FRAMES)


@pytest.fixture
def film(make_clip):
    return own_medium("film", str(make_clip("a.mp4")))


def stateless(model, talk, clips=None, contrast=None):
    """The answer to the last question of a conversation, all of it read at once."""
    item = Item(item_id="all", conversation=talk.asked, task="chat")
    size = model.backbone.vision.encoder.image_size
    batch = collate([VideoDataset([item], num_frames=FRAMES, image_size=size, clips=clips)[0]])
    with torch.inference_mode():
        return model.backbone.generate(batch, GREEDY, contrast)[0][0]


def check(model, chat, answer):
    """The answer is that of the entire conversation, asked at once."""
    assert answer.text == chat.conversation.target
    same(answer, stateless(model, chat.conversation))


def same(answer, expected):
    assert answer.text == expected.text
    assert answer.log_prob == pytest.approx(expected.log_prob, rel=1e-4)


def test_what_is_heard_stands_beside_what_is_seen_and_silence_is_no_fault(film, tmp_path):
    backbone = tiny_backbone("sound=clip_qformer").eval()
    hearing = Ready(backbone, backbone.llm, torch.device("cpu"), 3)
    clips = ClipSettings(16_000, 3, 2.0)
    chat = Chat(hearing, GREEDY, FRAMES, clips)
    with wave.open(str(tmp_path / "beep.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(range(256)) * 500)
    chat.show(film)
    chat.show(own_medium("sound", str(tmp_path / "beep.wav")))
    same(chat.ask("what do you hear?"), stateless(hearing, chat.conversation, clips))
    chat.show(own_medium("sound", str(film.source)))  # which has no sound
    same(chat.ask("and now?"), stateless(hearing, chat.conversation, clips))


def calls_of(monkeypatch, owner, name):
    """What a method is called with from now on."""
    seen, original = [], getattr(owner, name)

    def counted(*args, **kwargs):
        seen.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return seen


def read_tokens(model, act):
    """How many tokens of rows the LLM's first layer reads while something is done."""
    counts = []
    first = next(m for n, m in model.llm.model.named_modules() if n.endswith(("q_proj", "c_attn")))
    hook = first.register_forward_pre_hook(lambda _, args: counts.append(args[0].shape[1]))
    act()
    hook.remove()
    return sum(counts)


def test_answers_are_those_of_the_entire_conversation_with_a_film_then_a_picture(
    model, chat, film, tmp_path
):
    chat.show(film)
    check(model, chat, chat.ask("what happens?"))
    check(model, chat, chat.ask("who is she?"))
    Image.new("RGB", (20, 10), (200, 0, 0)).save(tmp_path / "red.png")
    chat.show(own_medium("picture", str(tmp_path / "red.png")))
    check(model, chat, chat.ask("and here?"))
    assert [medium.kind for medium in chat.conversation.media] == ["film", "picture"]


def test_a_second_question_neither_decodes_nor_encodes_nor_reads_the_film_again(
    model, chat, film, monkeypatch
):
    decoded = calls_of(monkeypatch, VideoDataset, "__getitem__")
    encoded = calls_of(monkeypatch, model.backbone.vision, "encode")
    chat.show(film)
    first = read_tokens(model, lambda: chat.ask("what happens?"))
    second = read_tokens(model, lambda: chat.ask("who is she?"))
    assert len(decoded) == len(encoded) == 1
    turns = chat.conversation.turns
    before, until = (len(model.llm.rendering.turns(turns[:n]).ids) for n in (1, 3))
    film_tokens = model.backbone.vision.num_tokens(FRAMES)
    of_an_answer = first - film_tokens - before
    assert of_an_answer < 3 * GREEDY.max_new_tokens
    assert second <= until - before + of_an_answer + 1


def test_back_leaves_no_trace_and_what_was_shown_waits_for_the_next_question(model, chat, film):
    chat.show(film)
    first = chat.ask("what happens?")
    chat.ask("who is she?")
    assert chat.back() == "who is she?"
    check(model, chat, chat.ask("where is he?"))
    chat.back()
    assert chat.back() == "what happens?"
    assert chat.waiting == (film,)
    same(chat.ask("what happens?"), first)
    chat.back()
    with pytest.raises(DataError, match=r"there is no question 0; .* none so far"):
        chat.back()


def test_an_edited_question_is_asked_with_what_it_showed_and_later_ones_go(
    model, chat, film, monkeypatch
):
    decoded = calls_of(monkeypatch, VideoDataset, "__getitem__")
    chat.show(film)
    chat.ask("what happens?")
    chat.ask("who is she?")
    answer = chat.edit(1, "what is the genre of the movie?")
    assert [turn.text for turn in chat.conversation.turns] == [
        "what is the genre of the movie?", answer.text,
    ]  # fmt: skip
    assert chat.conversation.media == (film,)
    check(model, chat, answer)
    monkeypatch.undo()
    assert len(decoded) == 2, "once by the chat, once by the slow reference"
    with pytest.raises(DataError, match=r"there is no question 2; .* 1 to 1"):
        chat.edit(2, "why?")


def test_a_saved_conversation_goes_on_elsewhere_as_it_would_here(model, chat, film, tmp_path):
    chat.show(film)
    chat.ask("what happens?")
    save_conversation(chat.conversation, tmp_path / "talk.json")
    other = Chat(model, GREEDY, FRAMES)
    assert other.take(read_conversation(tmp_path / "talk.json")) is None
    assert other.conversation == chat.conversation
    same(other.ask("who is she?"), chat.ask("who is she?"))
    other.edit(1, "why?")
    assert other.conversation.media == (film,)


def test_media_of_a_loaded_file_lie_beside_it_and_an_open_question_waits(chat, film, tmp_path):
    turns = (
        Turn("system", ("be brief",)),
        Turn("user", (Shown(1), "what happens?")),
        Turn("assistant", ("a dog barks",)),
        Turn("user", ("and", Shown(0), "here?")),
    )
    media = (Medium(medium_id="b", source=film.source, start_s=1), film)
    values = Conversation(turns, media).as_json()
    for medium in values["media"]:
        medium["source"] = film.source.name
    path = film.source.parent / "talk.json"
    path.write_text(json.dumps(values))
    assert chat.take(read_conversation(path)) == "andhere?"
    assert chat.waiting == (media[0],)
    assert chat.conversation == Conversation(
        (turns[0], Turn("user", (Shown(0), "what happens?")), turns[2]), (film,)
    )


def stop(text):
    """Someone who hears an answer types Ctrl-C."""
    raise KeyboardInterrupt


def test_a_question_that_is_stopped_or_fails_changes_nothing(model, chat, film, tmp_path):
    chat.show(film)
    chat.ask("what happens?")
    before = chat.conversation
    for attempt in (chat.ask, partial(chat.edit, 1)):
        with pytest.raises(KeyboardInterrupt):
            attempt("who is she?", stop)
        assert chat.conversation == before
    gone = Conversation.question(own_medium("film", str(tmp_path / "gone.mp4")), "what?")
    with pytest.raises(VideoError, match=r"gone\.mp4 does not exist"):
        chat.take(gone)
    check(model, chat, chat.ask("who is she?"))


@pytest.mark.parametrize(
    ("kind", "bounds_s", "message"),
    [
        ("film", (2.0, 1.0), "from 2 to 1.0 s; expected seconds from 0 on"),
        ("film", (float("nan"), None), "from nan to None s"),
        ("film", (99.0, None), "clip.mp4"),
        ("sound", (), "no sounds are read here"),
    ],
)
def test_what_cannot_be_shown_is_named_and_does_not_wait(chat, make_clip, kind, bounds_s, message):
    with pytest.raises(DataError, match=message):
        chat.show(own_medium(kind, str(make_clip()), *bounds_s))
    assert chat.waiting == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xd8", "is not JSON"),
        (b"{", "is not JSON"),
        (b'{"turns": [{"role": "user", "parts": ["\\ud800"]}]}', "is not JSON"),
        (b"[1]", "no conversation"),
        (b'{"turns": 3}', "no conversation"),
        (b'{"turns": []}', "has no turn of the user"),
        (b'{"turns": [{"role": "assistant", "parts": ["hi"]}]}', "the user begins"),
        (b'{"turns": [{"role": "user", "parts": [{"medium": 4}]}]}', "counted from 0"),
    ],
)
def test_a_file_that_holds_no_conversation_is_named_and_never_written_over(
    chat, film, tmp_path, content, message
):
    path = tmp_path / "notes.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"notes.json.* {message}"):
        read_conversation(path)
    chat.show(film)
    chat.ask("what?")
    with pytest.raises(DataError, match=message):
        save_conversation(chat.conversation, path)
    assert path.read_bytes() == content


VIEWS = [NoFilm(), Shuffle(), NoMemory(), None]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_a_chat_against_another_view_answers_as_all_of_it_asked_at_once(model, film, view):
    contrast = Contrast(view=view, alpha=0.0 if view is None else 1.0, beta=0.0)
    chat = Chat(model, GREEDY, FRAMES, contrast=contrast)
    chat.show(film)
    for question in ("what is it?", "why?", "and then?"):
        same(chat.ask(question), stateless(model, chat.conversation, contrast=contrast))
    chat.back()
    same(chat.edit(1, "who is it?"), stateless(model, chat.conversation, contrast=contrast))
    again = Chat(model, GREEDY, FRAMES, contrast=contrast)
    again.take(chat.conversation)
    same(again.ask("why?"), stateless(model, again.conversation, contrast=contrast))


def test_the_other_view_of_a_chat_is_read_once(model, film, monkeypatch):
    lengths, contrast = [], Contrast(view=NoFilm(), beta=0.0)
    chat = Chat(model, GREEDY, FRAMES, contrast=contrast)
    chat.show(film)
    chat.ask("what is it, and why is it so?")
    read = type(model.llm.layout).read

    def counted(layout, asked, past=None):
        lengths.append((asked.inputs()[0].shape[1], len(past.names)))
        return read(layout, asked, past)

    monkeypatch.setattr(type(model.llm.layout), "read", counted)
    chat.ask("why?")
    (other, known_of_other), (seen, known) = lengths
    assert seen - known == other - known_of_other < other, "each reads what is new"
