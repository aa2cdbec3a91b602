"""Small copies of the films that a test asked about, to play in its report."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmavlm.core.errors import VideoError
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.temporary import working_folder
from mmavlm.data.sources import FrameSource
from mmavlm.movies.encode import write_video
from mmavlm.report import PlayedFilm

log = logging.getLogger(__name__)

FPS = 8
PIXELS = 240  # longest side
SETTINGS = {"preset": "veryfast", "crf": "30", "threads": "1"}  # of x264: small before all else


def films_of(
    items: Iterable[Item], wanted: Collection[str], *, most: int, most_s: float
) -> dict[str, PlayedFilm]:
    """Item id → the film it asks about, of the first `most` films of the `wanted` items.

    Pictures, sounds, cached features and films that are gone have none.
    """
    left = set(wanted) if most else set()
    by_item: dict[str, Medium] = {}
    for item in items:
        if not left:
            break
        if item.item_id in left:
            left.remove(item.item_id)
            media = item.conversation.media
            if film := next((medium for medium in media if medium.kind == "film"), None):
                by_item[item.item_id] = film
    played: dict[Medium, PlayedFilm | None] = {}
    for name in wanted:
        medium = by_item.get(name)
        if medium is not None and medium not in played and sum(map(bool, played.values())) < most:
            played[medium] = small_film(medium, most_s)
    found = ((name, played.get(medium)) for name, medium in by_item.items())
    return {name: film for name, film in found if film is not None}


def small_film(medium: Medium, most_s: float) -> PlayedFilm | None:
    """The first `most_s` seconds of a medium, small; None where nothing can be played.

    A film that cannot be read, encoded or written is told of in the log: a report does without.
    """
    source = FrameSource.of(medium)
    if not medium.source.exists() or source.holds_features:
        return None
    try:
        last_s = min(source.duration_s, np.inf if medium.end_s is None else medium.end_s)
        end_s = min(last_s, medium.start_s + most_s)
        times_s = np.arange(medium.start_s, end_s, 1 / FPS).tolist()
        with working_folder("report") as folder:
            path = folder / "film.mp4"
            write_video(_small(source.pictures(times_s)), path, FPS, settings=SETTINGS)
            mp4 = path.read_bytes()
    except (VideoError, OSError) as error:  # such as a temporary folder without room
        log.warning("%s does not play in the report: %s", medium.medium_id, error)
        return None
    end_s = medium.start_s + len(times_s) / FPS
    return PlayedFilm(medium.medium_id, mp4, medium.start_s, end_s, whole=last_s <= end_s + 1 / FPS)


def _small(pictures: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Pictures of one size, that of the first one made small, with even sides for the codec."""
    size: list[int] = []
    for picture in pictures:
        image = Image.fromarray(picture)
        if not size:
            scale = min(1, PIXELS / max(image.size))
            size = [max(2, round(side * scale / 2) * 2) for side in image.size]
        yield np.asarray(image.resize(size, Image.Resampling.BILINEAR))
