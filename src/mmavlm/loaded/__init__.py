"""A loaded model in the hands of a Python user: asked, talked with, watched, explained."""

from typing import TYPE_CHECKING

from mmavlm.core.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.loaded.answers import FilmAnswer, Said
    from mmavlm.loaded.explained import Explained
    from mmavlm.loaded.live import Moment, Watching
    from mmavlm.loaded.model import LoadedModel, load
    from mmavlm.loaded.talk import Talk

__all__ = [
    "Explained",
    "FilmAnswer",
    "LoadedModel",
    "Moment",
    "Said",
    "Talk",
    "Watching",
    "load",
]

__getattr__, __dir__ = lazy_names(__name__)
