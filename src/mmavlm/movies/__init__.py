"""Synthetic movies: seeded scripts, drawn and encoded, with LVU labels each shown by one cause."""

from typing import TYPE_CHECKING

from mmavlm.core.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.movies.captions import write_caption
    from mmavlm.movies.labels import TASKS
    from mmavlm.movies.plot import plan_labels, write_script
    from mmavlm.movies.render import Renderer
    from mmavlm.movies.script import Movie, WorldState
    from mmavlm.movies.write import MovieSetParameters, ensure_movie_set, plan_movies

__all__ = [
    "TASKS",
    "Movie",
    "MovieSetParameters",
    "Renderer",
    "WorldState",
    "ensure_movie_set",
    "plan_labels",
    "plan_movies",
    "write_caption",
    "write_script",
]

__getattr__, __dir__ = lazy_names(__name__)
