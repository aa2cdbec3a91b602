"""Films that a cache remembers: not looked at when a run starts, and never taken when changed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmavlm.core.errors import VideoError
from mmavlm.core.medium import Medium
from mmavlm.data import known_films
from mmavlm.data.encoder_cards import EncoderCard
from mmavlm.data.feature_cache import CachedFilms, FeatureCache
from mmavlm.data.film_entries import FilmFrames, FilmPlan, Sampling
from mmavlm.data.known_films import KnownFilms, identities, identity

SAMPLING = Sampling(2, 10.0)


@pytest.fixture
def films(tmp_path):
    """Five films, the last of which is a folder of pictures."""
    paths = []
    for number in range(5):
        path = tmp_path / f"films/{number}.mp4"
        if number == 4:
            path.mkdir()
            path /= "1.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * number)
        paths.append(path.parent if number == 4 else path)
    return paths


def remembered(folder, films):
    known = KnownFilms(folder)
    known.remember([(path, identity(path)) for path in films])
    return KnownFilms(folder)


def test_what_is_remembered_is_what_was_seen_and_others_are_looked_at(films, tmp_path, monkeypatch):
    expected = [identity(path) for path in films]
    known, looked = remembered(tmp_path, films[1:]), []
    monkeypatch.setattr(known_films, "identity", lambda p: looked.append(p) or identity(p))
    assert known.identities(films) == expected
    assert looked == films[:1]
    gone = tmp_path / "gone.mp4"
    assert known.identities([gone]) == [["unreadable", "FileNotFoundError"]]
    known.remember([(gone, identity(gone))])
    assert KnownFilms(tmp_path).identities([gone]) == [["unreadable", "FileNotFoundError"]]


def test_many_films_are_looked_at_in_their_order(films, monkeypatch):
    monkeypatch.setattr(known_films, "AT_ONCE", 2)
    many = films * 7
    assert identities(many) == [identity(path) for path in many]


def test_newer_films_take_the_place_of_what_was_remembered(films, tmp_path):
    remembered(tmp_path, films)
    films[0].write_bytes(b"longer")
    assert remembered(tmp_path, films[:1]).identities(films) == [identity(p) for p in films]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + b"\x07", lambda b: b""])
def test_a_damaged_table_remembers_nothing(films, tmp_path, damage):
    known = remembered(tmp_path, films)
    known.path.write_bytes(damage(known.path.read_bytes()))
    assert not KnownFilms(tmp_path)


def test_entries_are_the_same_and_a_film_that_changed_is_told_when_it_is_read(films, tmp_path):
    media = [Medium(medium_id=path.name, source=path) for path in films]
    cache = FeatureCache(tmp_path / "cache", EncoderCard(32, 1, 2, "tiny"))
    plan = FilmPlan(media, SAMPLING)
    rows = torch.arange(2, dtype=torch.int32)[None]
    for entry in plan.entries:
        cache.write(entry, FilmFrames(torch.empty(0), torch.zeros(2), rows), torch.ones(2, 1, 2))
    known = remembered(tmp_path, films)
    again = FilmPlan(media, SAMPLING, known)
    assert [entry.key for entry in again.entries] == [entry.key for entry in plan.entries]
    read = CachedFilms(replace(cache, known=known), again).read
    for medium in media:
        read(medium)
    films[0].write_bytes(b"another film")
    (films[4] / "2.jpg").touch()
    films[1].unlink()
    for changed in (0, 1, 4):
        with pytest.raises(VideoError, match=r"has changed, or is gone, since its features"):
            read(media[changed])
    read(media[2])
    assert Path(media[2].source).exists()
