"""Those who talk with a model: what each brought, and said, apart from all others."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from mmavlm.core.medium import Kind
from mmavlm.core.temporary import own_folder
from mmavlm.loaded.talk import Talk
from mmavlm.serve.limits import Limits, RefusedError

GONE = 410


@dataclass(frozen=True)
class Film:
    """A film, picture or sound that was brought: `name` is its own, `path` where it lies."""

    film_id: str
    name: str
    path: Path
    kind: Kind
    duration_s: float | None


@dataclass
class Visit:
    """One visitor: a folder of films, and a conversation with each model."""

    visit_id: str
    folder: Path
    films: dict[str, Film] = field(default_factory=dict)
    talks: dict[int, Talk] = field(default_factory=dict)
    last_s: float = field(default_factory=time.monotonic)
    busy: int = 0  # requests that are being worked on
    brief: bool = False  # of one answer alone

    def film(self, film_id: str) -> Film:
        """A film by its id.

        Raises:
            RefusedError: if there is none.
        """
        if film_id not in self.films:
            raise RefusedError("this film is not here any more; open it again", GONE)
        return self.films[film_id]

    def remove_films(self) -> None:
        """Delete what was brought."""
        for film in self.films.values():
            film.path.unlink(missing_ok=True)
        self.films.clear()

    def add(self, name: str, path: Path, kind: Kind, duration_s: float | None) -> Film:
        """Keep a film that lies in the folder."""
        film = Film(secrets.token_urlsafe(8), name, path, kind, duration_s)
        self.films[film.film_id] = film
        return film


class Visits:
    """All visits, in folders below one that goes when the server does."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.root = own_folder("serve")
        self._clock = clock
        self._visits: dict[str, Visit] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._visits)

    def new(self, *, brief: bool = False) -> Visit:
        """Begin a visit; those that were silent for too long end.

        One that is `brief` ends with its answer, and the line in front of the model bounds those.
        Of others the longest silent gives way that brought nothing.

        Raises:
            RefusedError: if there are as many as there may be.
        """
        self.sweep()
        if not brief:
            self._make_way()
        with self._lock:
            kept = [visit for visit in self._visits.values() if not visit.brief]
            if not brief and len(kept) >= self.limits.max_visits:
                raise RefusedError(
                    f"{len(kept)} others talk with the model, which is all it takes; come back "
                    f"when one has left, or was silent for {self.limits.keep_minutes:g} minutes",
                    503,
                )
            name = secrets.token_urlsafe(16)
            folder = self.root / name
            folder.mkdir(mode=0o700)
            self._visits[name] = Visit(name, folder, last_s=self._clock(), brief=brief)
            return self._visits[name]

    def get(self, visit_id: str | None) -> Visit:
        """A visit that has begun; it is not silent now.

        Raises:
            RefusedError: if there is none of this name.
        """
        with self._lock:
            visit = self._visits.get(visit_id or "")
            if visit is None:
                raise RefusedError("this visit is over; load the page again", GONE)
            visit.last_s = self._clock()
            return visit

    @contextmanager
    def working(self, visit: Visit) -> Iterator[None]:
        """Keep a visit from ending by silence meanwhile."""
        with self._lock:
            visit.busy += 1
        try:
            yield
        finally:
            with self._lock:
                visit.busy -= 1
                visit.last_s = self._clock()

    def end(self, visit_id: str) -> None:
        """Forget a visit and delete what it brought."""
        with self._lock:
            visit = self._visits.pop(visit_id, None)
        if visit is not None:
            shutil.rmtree(visit.folder, ignore_errors=True)

    def _make_way(self) -> None:
        with self._lock:
            kept = [visit for visit in self._visits.values() if not visit.brief]
            idle = [v for v in kept if not (v.busy or v.films or v.talks)]
        if len(kept) >= self.limits.max_visits and idle:
            self.end(min(idle, key=lambda visit: visit.last_s).visit_id)

    def sweep(self) -> None:
        """End all visits that were silent for too long."""
        before = self._clock() - 60 * self.limits.keep_minutes
        with self._lock:
            old = [v.visit_id for v in self._visits.values() if v.last_s < before and not v.busy]
        for visit_id in old:
            self.end(visit_id)

    def close(self) -> None:
        """End all visits."""
        self._visits.clear()
        shutil.rmtree(self.root, ignore_errors=True)
