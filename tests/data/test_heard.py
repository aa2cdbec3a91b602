"""Questions about films that are heard."""

from pathlib import Path

import pytest

from mmavlm.core.conversation import Conversation, Medium, Shown, Turn
from mmavlm.core.errors import ConfigError
from mmavlm.core.items import Item, Reader
from mmavlm.data.readers import HeardReader

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


@pytest.mark.parametrize("show", [[], ["sound", "sound"], ["smell"]])
def test_what_cannot_be_shown_is_refused(show):
    with pytest.raises(ConfigError, match=r"data.reader.show is .* one or both of sound, film"):
        HeardReader(Films(), show)
