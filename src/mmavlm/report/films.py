"""Films that play in a page: small, without sound, each in it once."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PlayedFilm:
    """A stretch of a film as it plays in the page: H.264 in mp4, from `start_s` to `end_s`.

    `whole` says whether that is all that was asked about.
    """

    name: str
    mp4: bytes
    start_s: float
    end_s: float
    whole: bool = True


class FilmsOfPage:
    """The films of one page: each lies in it once, and is pointed to where it is shown again."""

    def __init__(self) -> None:
        self._anchors: dict[PlayedFilm, str] = {}

    def lay_out(self, film: PlayedFilm | None) -> dict[str, Any] | None:
        """What the page's template is given: an anchor, and the film itself the first time."""
        if film is None:
            return None
        again = film in self._anchors
        anchor = self._anchors.setdefault(film, f"film-{len(self._anchors) + 1}")
        length_s = film.end_s - film.start_s
        uri = "data:video/mp4;base64," + base64.b64encode(film.mp4).decode("ascii")
        return {
            "anchor": anchor,
            "uri": "" if again else uri,
            "film": film,
            "length_s": f"{length_s:.3f}",
        }
