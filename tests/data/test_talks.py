"""What `check` says of conversations, and what docs/instructions.md shows of their formats."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import VideoError
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Shown, Turn
from mmavlm.data import readers
from mmavlm.data.inspect import inspect
from mmavlm.data.talks import TokenLengths, described

DOCS = Path(__file__).parents[2] / "docs" / "instructions.md"
EXAMPLES = dict(re.findall(r"```json (\w+)\n(.*?)```", DOCS.read_text(), re.DOTALL))
FORMATS = {
    "conversations": (readers.ConversationReader, "train.jsonl", 3),
    "llava": (readers.LlavaReader, "train.json", 3),
    "videochat": (readers.VideoChatReader, "train.json", 1),
    "minigpt4": (readers.MiniGPT4Reader, "filter_cap.json", 1),
    "sounds": (readers.SoundReader, "sounds/train.jsonl", 1),
}
FILM, PICTURE = (Medium(medium_id=k, source=Path(k), kind=k) for k in ("film", "picture"))


def item(talk, name="q"):
    return Item(item_id=name, conversation=talk, task="open")


def said(role, *parts):
    return Turn(role, parts, learned=role == "assistant")


def test_turns_media_and_lengths_are_told():
    talks = [
        Conversation.question(FILM, "Who is it?", "A dog."),
        Conversation((said("user", "Hi."), said("assistant", "Hi."))),
        Conversation(
            (
                *(said("system", "Be brief."), said("user", Shown(0), "Is it ", Shown(1), "?")),
                *(
                    said("assistant", "Yes."),
                    said("user", "Why?"),
                    said("assistant", "It barks so."),
                ),
            ),
            (FILM, PICTURE),
        ),
    ]
    assert described([item(talk) for talk in talks]) == [
        "3 conversations of 2 to 5 (3.0 on average) turns",
        "media: 2 films, 1 pictures, 0 sounds; 1 conversations show several, 1 none",
        "a turn of the system: 2 to 2 (2.0 on average) words, at most 9 characters",
        "a turn of the user: 1 to 3 (2.0 on average) words, at most 10 characters",
        "a turn of the assistant: 1 to 3 (1.8 on average) words, at most 12 characters",
        "an entire conversation: 2 to 10 (5.7 on average) words, at most 41 characters",
    ]


def test_with_a_tokenizer_lengths_are_in_tokens_and_what_is_cut_is_counted():
    talks = [Conversation.question(FILM, "x" * n, "y" * n) for n in (3, 4, 5)]
    letters = TokenLengths(lambda texts: list(map(len, texts)), 4, 5)
    user, assistant = described([item(talk) for talk in talks], letters)[3:5]
    assert user.endswith(
        "; 3 to 5 (4.0 on average) tokens, 1 of 3 lose their beginning (llm.max_prompt_tokens=4)"
    )
    # the end of an answer is a token: five letters with it are six
    assert assistant.endswith(
        "; 4 to 6 (5.0 on average) tokens, 1 of 3 lose their end (llm.max_answer_tokens=5)"
    )
    entire = TokenLengths(letters.count, 5, 6)
    assert all("none is cut" in line for line in described([item(t) for t in talks], entire)[3:5])


def test_views_and_what_is_said_between_their_frames_are_counted_with_a_tokenizer():
    other = replace(FILM, medium_id="other", source=Path("other"))
    again = said("user", Shown(0), "And here?", Shown(1)), said("assistant", "Yes.")
    talks = [
        Conversation.question(FILM, "Who?", "He."),
        Conversation((said("user", Shown(0), "Who?"), said("assistant", "He."), *again),
                     (other, FILM)),
    ]  # fmt: skip
    texts = {FILM: ["ab", "cd"], other: ["x"]}
    letters = TokenLengths(lambda texts: list(map(len, texts)), 9, 9, lambda film: texts[film])
    views, lines = described([item(talk) for talk in talks], letters)[2:4]
    assert views.startswith("views: 1 to 3 (2.0 on average) a row; ")
    # a line stands on a line of its own; a film that is shown twice says all of it twice
    assert lines.startswith("subtitles: 2 to 4 (3.0 on average) lines a row, about 8 to 14 (11.0 ")


def test_subtitles_that_cannot_be_read_are_named():
    def damaged(film):
        raise VideoError("a.srt is damaged")

    letters = TokenLengths(lambda texts: list(map(len, texts)), 9, 9, damaged)
    found = described([item(Conversation.question(FILM, "Who?", "He."))], letters)
    assert "subtitles of 1 films cannot be read, such as: a.srt is damaged" in found


@pytest.mark.parametrize(
    "talk",
    [Conversation.question(FILM, "Who?", "He."), Conversation.question(FILM, "Who?")],
)
def test_nothing_is_told_of_questions_about_a_film(talk):
    assert described([item(talk)]) == []
    assert described([]) == []


def test_one_picture_is_enough_to_tell_of_it():
    talks = [Conversation.question(m, "Who?", "He.") for m in (FILM, PICTURE)]
    assert "media: 1 films, 1 pictures, 0 sounds" in described(list(map(item, talks)))[1]


def test_every_format_has_an_example():
    assert EXAMPLES.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_an_example_of_the_docs_is_read_and_described(tmp_path, name, capsys):
    reader, file, count = FORMATS[name]
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(EXAMPLES[name])
    found = reader().read(tmp_path, "train", None)
    assert (len(found.items), found.skipped, found.notes) == (count, {}, ())
    inspect(reader(), tmp_path, None, splits=["train"]).print()
    assert f"train: {count} conversations of " in capsys.readouterr().out


def test_pictures_are_opened_as_pictures_and_sounds_are_not_taken_for_films(tmp_path, make_clip):
    make_clip("film.mp4", 3)
    Image.new("RGB", (8, 6)).save(tmp_path / "good.webp")
    (tmp_path / "cut.png").write_bytes(b"no picture")
    (tmp_path / "rain.wav").write_bytes(b"no film")
    kinds = {"film.mp4": "film", "good.webp": "picture", "cut.png": "picture", "rain.wav": "sound"}
    media = [{"source": name, "kind": kind} for name, kind in kinds.items()]
    asked = {"role": "user", "parts": [{"medium": number} for number in range(4)]}
    row = {"media": media, "turns": [asked, {"role": "assistant", "parts": ["Yes."]}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    found = inspect(readers.ConversationReader(), tmp_path, None, splits=["train"], decode=True)
    (name,) = found.splits["train"].broken
    assert name == "cut.png"
