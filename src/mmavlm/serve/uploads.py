"""Films that come in: never larger or longer than is taken, and never under a name of their own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterable
from pathlib import Path, PurePath

from anyio.to_thread import run_sync

from mmavlm.core.errors import MmavlmError
from mmavlm.core.medium import Kind
from mmavlm.data.pictures import open_picture
from mmavlm.data.probe import probe
from mmavlm.data.sources import VIDEO_SUFFIXES
from mmavlm.loaded.places import PICTURES, SOUNDS, kind_of
from mmavlm.serve.limits import Limits, RefusedError
from mmavlm.serve.visits import Film, Visit

KNOWN = {*VIDEO_SUFFIXES, *PICTURES, *SOUNDS}
TOO_LARGE = 413
LONGEST_NAME = 120


async def received(visit: Visit, name: str, content: AsyncIterable[bytes], limits: Limits) -> Film:
    """A film whose bytes come in; nothing of one that is refused stays.

    Raises:
        RefusedError: if it is of no kind that is read, too large, too long, or broken.
    """
    name = PurePath(name.replace("\\", "/")).name[-LONGEST_NAME:] or "film"
    suffix = PurePath(name).suffix.lower()
    if suffix not in KNOWN:
        known = " ".join(sorted(KNOWN))
        raise RefusedError(f"{name} is no film, picture or sound by its ending; those are {known}")
    if len(visit.films) >= limits.max_films:
        raise RefusedError(f"{limits.max_films} films are here already; begin a new conversation")
    path = visit.folder / f"{secrets.token_hex(8)}{suffix}"
    try:
        await _written(path, name, content, limits)
        kind = kind_of(path)
        duration_s = await run_sync(_checked, path, name, kind, limits)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return visit.add(name, path, kind, duration_s)


def too_large(name: str, limits: Limits) -> RefusedError:
    """What is said of a film with too many bytes."""
    more = f"{name} has more than {limits.max_mb:g} MB"
    return RefusedError(f"{more}; cut it, or start the server with max_mb=…", TOO_LARGE)


async def _written(path: Path, name: str, content: AsyncIterable[bytes], limits: Limits) -> None:
    size = 0
    with path.open("xb") as file:
        async for piece in content:
            size += len(piece)
            if size > limits.max_bytes:
                raise too_large(name, limits)
            file.write(piece)
    if not size:
        raise RefusedError(f"{name} is empty")


def _checked(path: Path, name: str, kind: Kind, limits: Limits) -> float | None:
    """The seconds of a film that can be read."""
    if kind == "sound":
        return None  # decoded when it is shown, and told then
    try:
        if kind == "picture":
            open_picture(path)
            return None
        duration_s = probe(path).duration_s
    except MmavlmError as error:
        raise RefusedError(str(error).replace(str(path), name)) from error
    if duration_s > 60 * limits.max_minutes:
        raise RefusedError(
            f"{name} lasts {duration_s / 60:.0f} minutes, at most {limits.max_minutes:g}; cut it, "
            "or start the server with max_minutes=…",
            TOO_LARGE,
        )
    return duration_s
