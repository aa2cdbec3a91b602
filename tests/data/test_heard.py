"""Questions about films that are heard."""

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError
from mmavlm.core.items import Item, Reader
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Shown, Turn
from mmavlm.data.dataset import VideoDataset
from mmavlm.data.readers import HeardReader
from mmavlm.data.sound import ClipSettings, SoundSource

FILM = Medium(medium_id="a", source=Path("a.mp4"), start_s=1.0, end_s=2.0)
PICTURE = Medium(medium_id="b", source=Path("b.png"), kind="picture")


class Films:
    """A reader of one question about a film and one about a picture beside a film."""

    def __call__(self, root, split, task):
        both = Conversation(
            (Turn("user", ("first ", Shown(1), " then ", Shown(0), "what?")),
             Turn("assistant", ("this",), learned=True)),
            (FILM, PICTURE),
        )  # fmt: skip
        asked = Conversation.question(FILM, "what?", "this")
        return [
            Item(item_id=str(n), conversation=talk, task="open")
            for n, talk in enumerate((asked, both))
        ]

    def classes(self, root, task):
        return {"open": ["this"]}


def test_a_film_is_heard_in_front_of_what_is_seen():
    heard = HeardReader(Films())
    assert isinstance(heard, Reader)
    question, _ = heard(Path("."), "train", None)
    assert [m.kind for m in question.conversation.media] == ["sound", "film"]
    assert {(m.source, m.start_s, m.end_s) for m in question.conversation.media} == {
        (FILM.source, 1.0, 2.0)
    }
    assert question.conversation.turns[0].parts == (Shown(0), Shown(1), "what?")
    assert (question.prompt, question.target) == ("what?", "this")
    assert heard.classes(Path("."), None) == {"open": ["this"]}


def test_pictures_stay_and_every_place_of_a_film_is_heard_there():
    _, both = HeardReader(Films(), ["film", "sound"])(Path("."), "train", None)
    assert [m.kind for m in both.conversation.media] == ["film", "sound", "picture"]
    assert both.conversation.turns[0].parts == (
        "first ", Shown(2), " then ", Shown(0), Shown(1), "what?",
    )  # fmt: skip


def test_a_film_may_be_heard_alone():
    question, _ = HeardReader(Films(), ["sound"])(Path("."), "train", None)
    assert [m.kind for m in question.conversation.media] == ["sound"]


def test_questions_of_which_nothing_is_shown_keep_their_words():
    question, several = HeardReader(Films(), [])(Path("."), "train", None)
    shown, _ = HeardReader(Films(), ["film"])(Path("."), "train", None)
    assert question.conversation.media == ()
    assert (question.prompt, question.target) == (shown.prompt, shown.target)
    assert [m.kind for m in several.conversation.media] == ["picture"]


@pytest.mark.parametrize("show", [["sound", "sound"], ["smell"]])
def test_what_cannot_be_shown_is_refused(show):
    with pytest.raises(ConfigError, match=r"data.reader.show is .* one or both of sound, film"):
        HeardReader(Films(), show)


@pytest.mark.parametrize("keeps", [True, False])
def test_a_sound_is_decoded_once_where_what_was_decoded_is_kept(tmp_path, monkeypatch, keeps):
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((np.sin(np.arange(16_000)) * 9000).astype("<i2").tobytes())
    sound = Medium(medium_id="a", source=path, kind="sound")
    item = Item(item_id="0", conversation=Conversation.question(sound, "?", "a"), task="open")
    dataset = VideoDataset(
        [item], num_frames=1, image_size=32, keep_frames=keeps, clips=ClipSettings(8000, 2, 0.5)
    )
    asked = []
    clips = SoundSource.clips
    monkeypatch.setattr(
        SoundSource, "clips", lambda self, *how: asked.append(how) or clips(self, *how)
    )
    first, second = dataset[0].sounds[0], dataset[0].sounds[0]
    assert torch.equal(first.clips, second.clips)
    assert first.clips.abs().max() > 0.1
    assert len(asked) == (1 if keeps else 2)
