from itertools import combinations

import numpy as np
import pytest

from mmavlm.movies import TASKS, Renderer, write_script
from mmavlm.movies.labels import GENRE, YEAR
from mmavlm.movies.places import PROPS
from mmavlm.movies.plot import FLOOR_DECOR, FURNITURE, TOKENS, WALL_DECOR
from mmavlm.movies.render import camera_at, render
from mmavlm.movies.sprites import draw_bubble, draw_token

SIZE = 64


def make(seed=(0, 1), **labels):
    plain = {task: names[0] for task, names in TASKS.items()} | {"director": "peter", "year": "5"}
    return write_script("m", {**plain, **labels}, 4.0, seed)


def film(movie):
    return np.stack(list(render(movie, fps=5, size=SIZE)))


def test_render_gives_every_frame_in_rgb():
    frames = film(make())
    assert frames.shape == (20, SIZE, SIZE, 3)
    assert frames.dtype == np.uint8


def test_frames_do_not_depend_on_which_were_drawn_before():
    movie = make(way_speaking="discuss")
    in_order = film(movie)
    alone = Renderer(movie, SIZE).frame(13 / 5)
    np.testing.assert_array_equal(in_order[13], alone)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_class_of_a_task_looks_different(task):
    films = {name: film(make(**{task: name})).astype(float) for name in TASKS[task]}
    for one, other in combinations(films, 2):
        assert np.abs(films[one] - films[other]).mean() > 0.9, (one, other)


@pytest.mark.parametrize(("one", "other"), list(combinations(sorted(GENRE), 2)))
def test_mood_stays_readable_in_black_and_white(one, other):
    frames = [film(make(genre=name, year="0")).astype(float) for name in (one, other)]
    assert np.ptp(frames[0], axis=-1).max() <= 1.0
    light = [f.mean(axis=0) - f.mean() for f in frames]
    assert np.abs(light[0] - light[1]).mean() > 3.0


@pytest.mark.parametrize("year", sorted(YEAR))
def test_look_of_an_era_shows_whatever_the_mood(year):
    for genre in GENRE:
        frames = film(make(genre=genre, year=year)).astype(int)
        assert (np.ptp(frames, axis=-1).mean() < 1.0) == (year == "0")
        bars = frames[:, [0, -1]].max()
        assert (bars == 0) == (year == "8")


def test_token_is_seen_on_the_shelf_only_while_it_is_there():
    movie = make(writer="stephen", relationship="friend")
    event = movie.token_events[0]
    box = np.s_[int(0.21 * SIZE) : int(0.35 * SIZE), int(0.4 * SIZE) : int(0.6 * SIZE)]
    renderer = Renderer(movie, SIZE)
    full = renderer.frame(event.start_s - 0.4)[box].astype(int)
    empty = renderer.frame(event.end_s + 0.4)[box].astype(int)
    assert np.abs(full - empty).mean() > 10.0


def test_light_falls_on_the_two_while_they_stand_together():
    movie = make(relationship="husband wife")  # together, apart, together
    renderer = Renderer(movie, SIZE)
    apart_s = next(event.end_s for event in movie.events if event.kind == "walk") + 0.05
    ground = np.s_[int(0.9 * SIZE) :]
    light = []
    for t_s in (0.0, apart_s, 3.95):
        columns = renderer.frame(t_s)[ground].astype(int).mean((0, 2))
        light.append(columns.max() - np.median(columns))
    assert min(light[0], light[2]) > light[1] + 20.0


def test_the_set_lies_in_the_dark_while_a_light_falls_on_the_two():
    renderer = Renderer(make(relationship="ex-boyfriend ex-girlfriend", genre="action"), SIZE)
    corner = np.s_[int(0.4 * SIZE) : int(0.6 * SIZE), : int(0.08 * SIZE)]
    together, apart = (renderer.frame(t_s)[corner].astype(int).mean() for t_s in (0.0, 3.95))
    assert together < 0.7 * apart


def test_characters_are_a_third_of_the_picture_high():
    movie = make()
    assert all(character.height > 0.35 for character in movie.characters)


def test_pans_and_zooms_are_each_other_backwards():
    for one, other in (("pan left", "pan right"), ("zoom in", "zoom out")):
        for share in (0.0, 0.3, 1.0):
            assert camera_at(one, share) == pytest.approx(camera_at(other, 1 - share))
    assert camera_at("pan left", 0.0)[0] > camera_at("pan left", 1.0)[0]
    assert camera_at("zoom in", 0.0)[1] < camera_at("zoom in", 1.0)[1]


def test_all_that_a_script_can_name_can_be_drawn():
    named = {name for pair in FURNITURE.values() for name in pair} | {*WALL_DECOR, *FLOOR_DECOR}
    assert named == set(PROPS)
    for sprite in (*(draw_token(name, "red", 16) for name in TOKENS), draw_bubble("sharp", 16)):
        assert np.asarray(sprite)[..., 3].max() == 255
