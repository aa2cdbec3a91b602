import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.core.errors import DataError
from mmavlm.movies import TASKS, Movie, write_script
from mmavlm.movies.script import TOGETHER_BELOW, Put, Speak, Take

unhurried = settings(deadline=None, max_examples=50)
LABELS = st.fixed_dictionaries({task: st.sampled_from(names) for task, names in TASKS.items()})
SEEDS = st.tuples(st.integers(0, 99), st.integers(0, 999))
DURATIONS = st.sampled_from([4.0, 12.0, 30.0])
SHOWN_COURSE = {
    "boyfriend girlfriend": ["apart", "together"],
    "ex-boyfriend ex-girlfriend": ["together", "apart"],
    "husband wife": ["together", "apart", "together"],
    "friend": ["apart", "together", "apart"],
}
SHOWN_SHELF = {
    "stephen": ["full", "empty"],
    "john": ["empty", "full"],
    "david": ["full", "empty", "full"],
    "akiva": ["empty", "full", "empty"],
}


def make(labels=None, seed=(0, 1), duration_s=12.0):
    plain = {task: names[0] for task, names in TASKS.items()}
    return write_script("m", {**plain, **(labels or {})}, duration_s, seed)


def distances(movie, times):
    left, right = (c.name for c in movie.characters)
    worlds = [movie.at(t_s).characters for t_s in times]
    return np.array([world[right].x - world[left].x for world in worlds])


def runs(states):
    kept = [s for s in states if s is not None]
    return [s for i, s in enumerate(kept) if i == 0 or s != kept[i - 1]]


def times(movie, count=200):
    return (np.arange(count) + 0.5) / count * movie.duration_s


@unhurried
@given(LABELS, SEEDS, DURATIONS)
def test_script_shows_the_labels_it_was_written_for(labels, seed, duration_s):
    assert make(labels, seed, duration_s).labels == labels


@unhurried
@given(LABELS, SEEDS, DURATIONS)
def test_relationship_can_be_read_off_the_distances_in_the_world(labels, seed, duration_s):
    movie = make(labels, seed, duration_s)
    gap = distances(movie, times(movie))
    near = ["together" if g < 0.25 else "apart" if g > 0.45 else None for g in gap]
    assert runs(near) == SHOWN_COURSE[labels["relationship"]]
    assert 0.25 < TOGETHER_BELOW < 0.45


@unhurried
@given(LABELS, SEEDS, DURATIONS)
def test_writer_can_be_read_off_the_shelf(labels, seed, duration_s):
    movie = make(labels, seed, duration_s)
    shelf = [movie.at(t_s).token_on_shelf for t_s in times(movie)]
    assert (
        runs([{0.0: "empty", 1.0: "full"}.get(share) for share in shelf])
        == (SHOWN_SHELF[labels["writer"]])
    )


@unhurried
@given(LABELS, SEEDS)
def test_every_phase_lasts_a_fifth_of_the_film(labels, seed):
    movie = make(labels, seed)
    changes = sorted(
        {(e.start_s, e.end_s) for e in movie.events if not isinstance(e, Speak | Take | Put)}
    )
    edges = [0.0, *(t for change in changes for t in change), movie.duration_s]
    phases = np.diff(edges)[::2]
    assert phases.min() >= 0.2 * movie.duration_s - 0.01


@unhurried
@given(SEEDS)
def test_coming_together_backwards_is_coming_apart(seed):
    forth = make({"relationship": "boyfriend girlfriend"}, seed)
    back = make({"relationship": "ex-boyfriend ex-girlfriend"}, seed)
    t_s = times(forth)
    np.testing.assert_allclose(
        distances(forth, t_s), distances(back, forth.duration_s - t_s), atol=1e-3
    )


@unhurried
@given(SEEDS)
def test_a_bag_of_distances_is_the_same_for_every_relationship(seed):
    bags = []
    for name in TASKS["relationship"]:
        movie = make({"relationship": name}, seed)
        bags.append(np.sort(distances(movie, times(movie))))
    for bag in bags[1:]:
        assert np.abs(bag - bags[0]).mean() < 0.01


@unhurried
@given(SEEDS)
def test_the_token_stands_on_the_shelf_equally_long_for_every_writer(seed):
    shares = []
    for name in TASKS["writer"]:
        movie = make({"writer": name}, seed)
        shares.append(np.mean([movie.at(t_s).token_on_shelf for t_s in times(movie)]))
    assert np.ptp(shares) < 0.01


@unhurried
@given(SEEDS, st.sampled_from(sorted(TASKS)))
def test_changing_one_label_leaves_the_rest_of_the_film_alone(seed, task):
    one, other = (make({task: TASKS[task][i]}, seed) for i in (0, 1))
    rest = {name: label for name, label in one.labels.items() if name != task}
    assert {name: label for name, label in other.labels.items() if name != task} == rest
    assert one.characters == other.characters
    assert one.token == other.token


@unhurried
@given(LABELS, SEEDS, DURATIONS)
def test_characters_stay_on_their_sides_and_in_the_picture(labels, seed, duration_s):
    movie = make(labels, seed, duration_s)
    left, right = (c.name for c in movie.characters)
    for t_s in times(movie, 100):
        world = movie.at(t_s).characters
        assert 0.15 < world[left].x < world[right].x < 0.85


@pytest.mark.parametrize(
    ("label", "voices", "tone", "overlap"),
    [
        ("explain", 1, "calm", False),
        ("discuss", 2, "calm", False),
        ("confront", 2, "sharp", True),
        ("teach", 2, "calm", False),
        ("threaten", 1, "sharp", False),
    ],
)
def test_way_of_speaking_shows_in_who_speaks_when(label, voices, tone, overlap):
    movie = make({"way_speaking": label})
    words = [event for event in movie.events if isinstance(event, Speak)]
    assert len({word.subject for word in words}) == voices
    assert {word.tone for word in words} == {tone}
    both = [all(c.speaking for c in movie.at(t).characters.values()) for t in times(movie)]
    assert any(both) == overlap


@unhurried
@given(LABELS, SEEDS)
def test_events_lie_within_the_film_in_order_of_time(labels, seed):
    movie = make(labels, seed)
    starts = [event.start_s for event in movie.events]
    assert starts == sorted(starts)
    assert all(0.0 <= e.start_s < e.end_s <= movie.duration_s for e in movie.events)


@unhurried
@given(LABELS, SEEDS)
def test_script_survives_json(labels, seed):
    movie = make(labels, seed)
    row = json.loads(json.dumps(movie.to_dict()))
    assert Movie.from_dict(row) == movie
    assert row["labels"] == labels


def test_world_state_tells_who_walks_and_who_speaks():
    movie = make({"relationship": "friend", "way_speaking": "discuss"})
    walk = next(event for event in movie.events if event.kind == "walk")
    word = next(event for event in movie.events if event.kind == "speak")
    assert movie.at((walk.start_s + walk.end_s) / 2).characters[walk.subject].walking
    assert not movie.at(walk.end_s + 0.01).characters[walk.subject].walking
    assert movie.at(word.start_s).characters[word.subject].speaking == word


def test_script_with_an_unknown_event_is_refused():
    row = make().to_dict()
    row["events"][0]["kind"] = "fly"
    with pytest.raises(DataError, match=r"script of movie m.*fly.*make the movie set anew"):
        Movie.from_dict(row)


def test_script_without_a_key_is_refused():
    row = replace(make(), movie_id="m7").to_dict()
    del row["scene"]
    with pytest.raises(DataError, match=r"script of movie m7.*scene"):
        Movie.from_dict(row)
