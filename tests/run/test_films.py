"""Small copies of films that play in a report."""

import errno
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from mmavlm.core.conversation import Conversation
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.run.films import FPS, PIXELS, films_of, small_film


def decoded(film, tmp_path):
    path = tmp_path / "played.mp4"
    path.write_bytes(film.mp4)
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def test_a_film_is_played_small_from_where_the_question_begins(make_clip, tmp_path):
    path = make_clip()
    whole = small_film(Medium(medium_id="m", source=path), 60)
    part = small_film(Medium(medium_id="m", source=path, start_s=0.5, end_s=1.0), 60)
    assert whole.whole
    assert part.whole
    assert (part.start_s, part.end_s) == (0.5, 1.0)
    frames = decoded(whole, tmp_path)
    assert max(frames[0].shape) <= PIXELS
    of_part = decoded(part, tmp_path)
    assert len(of_part) == FPS / 2
    nearest = [
        min(range(len(frames)), key=lambda n: np.abs(one.astype(int) - frames[n]).mean())
        for one in of_part
    ]
    assert nearest == [FPS // 2 + number for number in range(len(of_part))]


def test_of_a_long_film_the_beginning_is_played(make_clip):
    film = small_film(Medium(medium_id="m", source=make_clip()), 0.5)
    assert (film.end_s, film.whole) == (0.5, False)


def test_a_folder_of_frames_is_played(tmp_path):
    for number in range(5):
        picture = Image.fromarray(np.full((33, 301, 3), 50 * number, np.uint8))
        picture.save(tmp_path / f"frame{number + 1:06d}.jpg")
    film = small_film(Medium(medium_id="m", source=tmp_path), 60)
    frames = decoded(film, tmp_path)
    assert frames[0].shape == (26, PIXELS, 3)
    assert frames[0].mean() < frames[-1].mean()


@pytest.mark.parametrize("content", [None, b"no film"])
def test_what_cannot_be_played_leaves_a_report_without_it(tmp_path, content, caplog):
    path = tmp_path / "film.mp4"
    if content is not None:
        path.write_bytes(content)
    assert small_film(Medium(medium_id="mine", source=path), 60) is None
    assert ("mine does not play in the report" in caplog.text) == (content is not None)


def test_a_report_is_not_lost_for_want_of_room_for_its_films(make_clip, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mmavlm.run.films.write_video", full)
    assert small_film(Medium(medium_id="mine", source=make_clip()), 60) is None
    assert "mine does not play in the report: [Errno 28] No space left" in caplog.text


def asked(item, film=None):
    talk = Conversation.question(film, "what?")
    return Item(item_id=item, task="t", conversation=talk)


def test_the_first_films_of_the_wanted_items_are_played_each_once(make_clip, tmp_path):
    one = Medium(medium_id="one", source=make_clip())
    two = replace(one, medium_id="two", end_s=0.5)
    still = Medium(medium_id="still", source=tmp_path / "x.png", kind="picture")
    items = [asked("a", one), asked("b", one), asked("c", still), asked("d", two), asked("e")]
    found = films_of(items, ["d", "a", "b", "c", "e"], most=5, most_s=60)
    assert sorted(found) == ["a", "b", "d"]
    assert found["a"] is found["b"]
    assert sorted(films_of(items, ["d", "a", "b"], most=1, most_s=60)) == ["d"]
    assert films_of(items, ["d"], most=0, most_s=60) == {}


def test_items_behind_the_last_wanted_one_are_not_read(make_clip):
    def items():
        yield asked("a", Medium(medium_id="m", source=make_clip()))
        yield asked("b")
        raise AssertionError("read too far")

    assert [*films_of(items(), ["a"], most=1, most_s=60)] == ["a"]
