import json
from collections import Counter

import pytest

from mmavlm.movies import Movie, MovieSetParameters, ensure_movie_set, plan_movies
from mmavlm.movies.cuts import cut_rows
from mmavlm.movies.labels import RELATIONSHIP
from mmavlm.movies.script import TOGETHER_BELOW


def distances_seen(movie, start_s, end_s):
    """How near the two are in the part, looked at ten times a second, without repetitions."""
    seen = []
    steps = round((end_s - start_s) * 10)
    for step in range(steps + 1):
        world = movie.at(min(start_s + step / 10, end_s))
        left, right = (world.characters[c.name].x for c in movie.characters)
        distance = "together" if right - left < TOGETHER_BELOW else "apart"
        if seen[-1:] != [distance]:
            seen.append(distance)
    return tuple(seen)


def test_the_answer_of_a_part_is_what_its_moments_show():
    for _, movie in plan_movies(MovieSetParameters(clips=40)):
        for row in cut_rows(movie, "film.mp4"):
            shown = distances_seen(movie, row["start_s"], row["end_s"])
            assert RELATIONSHIP[row["answer"]] == shown
            assert row["answer"] != movie.labels["relationship"]


def test_films_of_three_phases_are_cut_twice_and_others_not_at_all():
    for _, movie in plan_movies(MovieSetParameters(clips=40)):
        rows = list(cut_rows(movie, "film.mp4"))
        assert len(rows) == (2 if len(movie.course) == 3 else 0)
        assert len({row["answer"] for row in rows}) == len(rows)


def test_both_answers_are_as_often_true():
    counts = Counter(
        (split, row["answer"])
        for split, movie in plan_movies(MovieSetParameters(clips=400))
        for row in cut_rows(movie, "film.mp4")
    )
    for split, films in {"train": 280, "test": 80}.items():
        for answer in ("boyfriend girlfriend", "ex-boyfriend ex-girlfriend"):
            assert counts[split, answer] == films / 2


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("cuts") / "set"
    return ensure_movie_set(root, clips=9, duration_s=2, fps=5, size=32)


def test_a_set_holds_the_cuts_of_its_own_films(small_set):
    for split in ("train", "val", "test"):
        rows = [json.loads(line) for line in (small_set / f"cuts/{split}.jsonl").open()]
        films = json.loads((small_set / f"lvu/annotation/{split}.json").read_text())
        scripts = [json.loads((small_set / f"lvu/script/{f}.json").read_text()) for f in films]
        movies = [Movie.from_dict(script) for script in scripts]
        assert rows == [r for m in movies for r in cut_rows(m, f"lvu/videos/{m.movie_id}.mp4")]
        assert all((small_set / row["video"]).is_file() for row in rows)
