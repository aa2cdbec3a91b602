"""Films cut short: the same question of a part of a film, in which less happens.

A film in which two people meet and part again tells one relationship as a whole, and another one
up to the parting. Whoever answers of the part what is true of the whole tells an event that was not
shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmavlm.movies.labels import RELATIONSHIP, Distance
from mmavlm.movies.script import Movie

TASK = "cuts"
QUESTION = "what is the relationship of the movie?"
SHOWN_BY: Mapping[tuple[Distance, ...], str] = {
    course: label for label, course in RELATIONSHIP.items()
}


def cut_rows(movie: Movie, video: str) -> Iterator[dict[str, Any]]:
    """Questions about a film of three phases: without its last one, and without its first one.

    `answer` is what the part shows. A film of two phases has none, since one alone tells nothing.
    """
    course, turns = movie.course, sorted({(walk.start_s, walk.end_s) for walk in movie.walks})
    if len(course) != 3:
        return
    (_, first_end_s), (last_start_s, _) = turns
    for part, phases, start_s, end_s in (
        ("beginning", course[:2], 0.0, last_start_s),
        ("end", course[1:], first_end_s, movie.duration_s),
    ):
        yield {
            "id": f"{movie.movie_id}/{TASK}/{part}",
            "video": video,
            "prompt": QUESTION,
            "answer": SHOWN_BY[phases],
            "task": TASK,
            "start_s": start_s,
            "end_s": end_s,
        }
