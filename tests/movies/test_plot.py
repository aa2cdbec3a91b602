from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.movies import TASKS, MovieSetParameters, plan_labels, plan_movies
from mmavlm.movies.labels import ANSWERS

unhurried = settings(deadline=None, max_examples=50)


@unhurried
@given(st.integers(1, 90), st.integers(0, 9))
def test_every_task_is_balanced_to_within_one_film(count, seed):
    planned = plan_labels(count, np.random.default_rng(seed))
    assert len(planned) == count
    for task, classes in TASKS.items():
        counts = Counter(labels[task] for labels in planned)
        sizes = [counts[name] for name in classes]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("one", "other"), list(combinations(sorted(TASKS), 2)))
def test_no_task_can_be_read_off_another(one, other):
    planned = plan_labels(4000, np.random.default_rng(0))
    counts = Counter((labels[one], labels[other]) for labels in planned)
    best = sum(max(counts[a, b] for b in TASKS[other]) for a in TASKS[one])
    assert best / 4000 < 1 / len(TASKS[other]) + 0.05


def test_every_class_has_its_own_option_letter():
    for task, classes in TASKS.items():
        assert set(ANSWERS[task]) == set(classes)
        assert len(set(ANSWERS[task].values())) == len(classes)


def test_another_seed_gives_other_films():
    sets = [
        [movie for _, movie in plan_movies(MovieSetParameters(clips=20, seed=s))] for s in (0, 1)
    ]
    assert not set(map(repr, sets[0])) & set(map(repr, sets[1]))


def test_who_moves_and_who_takes_say_nothing_by_side():
    movies = [movie for _, movie in plan_movies(MovieSetParameters(clips=300))]
    takers = Counter(m.token_events[0].subject == m.characters[0].name for m in movies)
    women_left = Counter(m.characters[0].gender for m in movies)
    for counts in (takers, women_left):
        assert min(counts.values()) > 110
