"""Tries to reach what may be slow, broken or gone: bounded in number and time."""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.core.files import PARTIAL
from mmavlm.core.settings import above_zero, whole_at_least
from mmavlm.data.shards.places import Place

log = logging.getLogger(__name__)

T = TypeVar("T")
CHANCE = random.SystemRandom()  # a run's own numbers are not to depend on what a server did
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 30.0
# What a server says that another try will not change.
FOR_GOOD = (401, 403, 404, 410)


class LostShardError(VideoError):
    """A shard that cannot be had: which, why, and after how many tries."""


@dataclass(frozen=True)
class Patience:
    """How often a shard is tried to be had, and for how many seconds in all.

    Raises:
        ConfigError: if a number is out of range.
    """

    tries: int = 5
    seconds: float = 300

    def __post_init__(self) -> None:
        whole_at_least("data.reader.store", 1, tries=self.tries)
        above_zero("data.reader.store", fetch_s=self.seconds)

    def try_to(self, what: str, place: Place, work: Callable[[Try], T]) -> T:
        """What `work` gives, tried again when it fails, with waits that double.

        Raises:
            LostShardError: naming the shard, the last reason, and the tries.
            ConfigError: if the file system cannot be used, or a disk of this machine is full.
        """
        begun, tried, reason = time.monotonic(), 0, "no time is left"
        while tried < self.tries and (left := self.seconds - time.monotonic() + begun) > 0:
            tried += 1
            try:
                return _within(left, work)
            except (ConfigError, LostShardError):
                raise
            except Exception as error:  # file systems raise what they like
                if is_full(error):
                    raise
                reason = place.reason(error)
                if is_for_good(error):
                    break
                log.info("%s: try %d failed: %s", place, tried, reason)
            left = self.seconds - time.monotonic() + begun
            if tried < self.tries and left > 0:
                wait_s = min(FIRST_WAIT_S * 2 ** (tried - 1), LONGEST_WAIT_S, left)
                time.sleep(wait_s * CHANCE.uniform(0.5, 1))  # nodes are not to come all at once
        raise LostShardError(
            f"the shard {place} cannot be {what}: {reason} (tries: {tried}, "
            f"{time.monotonic() - begun:.0f} s)"
        )


class Try:
    """One try; `gave_up` says that nobody waits for it any more."""

    def __init__(self) -> None:
        self._gave_up = threading.Event()

    @property
    def gave_up(self) -> bool:
        """Whether the time of this try is over."""
        return self._gave_up.is_set()

    def give_up(self) -> None:
        """Tell whoever works on it to stop."""
        self._gave_up.set()

    def check(self) -> None:
        """Stop here if nobody waits any more; raises TimeoutError."""
        if self.gave_up:
            raise TimeoutError("it took too long")


def fetch(place: Place, folder: Path, size: int | None, one: Try) -> Path:
    """Copy a file into `folder` under a name of its own, and check its size if that is known.

    Raises:
        OSError: or whatever its file system raises, if it cannot be read or has another size.
    """
    from fsspec.callbacks import Callback

    class Watch(Callback):
        def relative_update(self, inc: int = 1) -> None:
            one.check()

        def absolute_update(self, value: int) -> None:
            one.check()

    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{uuid.uuid4().hex}{PARTIAL}"
    try:
        system, path = place.system()
        system.get_file(path, str(partial), callback=Watch())
        one.check()
        came = partial.stat().st_size
        if size is not None and came != size:
            raise OSError(f"{came} bytes came of {size}")
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return partial


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk of this machine has no room, which no other try mends."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _within(seconds: float, work: Callable[[Try], T]) -> T:
    """What `work` gives, in a thread that is left alone when the time is over.

    File systems have limits of their own, or none: only so is every one of them bounded.
    """
    one, came = Try(), _Outcome()
    threading.Thread(target=came.take, args=(work, one), daemon=True).start()
    if not came.done.wait(seconds):
        one.give_up()
        raise TimeoutError(f"nothing came within {seconds:.0f} s")
    if came.error is not None:
        raise came.error
    return came.value


class _Outcome:
    """What a thread came to."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def take(self, work: Callable[[Try], Any], one: Try) -> None:
        try:
            self.value = work(one)
        except BaseException as error:  # raised again where it is waited for
            self.error = error
        if one.gave_up and isinstance(self.value, Path):  # a copy that nobody will take
            self.value.unlink(missing_ok=True)
        self.done.set()


def is_for_good(error: BaseException) -> bool:
    """Whether a file is not there, or not to be had, so that another try would end alike."""
    causes: list[BaseException] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    if any(_status(cause) in FOR_GOOD for cause in causes):
        return True
    # fsspec calls whatever a web server does not tell of "not found", and says the cause
    return isinstance(error, FileNotFoundError | PermissionError) and len(causes) == 1


def _status(error: BaseException) -> int | None:
    """What a server answered, as aiohttp, botocore or others tell of it."""
    response = getattr(error, "response", None)
    told = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    found = (getattr(error, "status", None), getattr(error, "status_code", None))
    return next((code for code in (*found, told.get("HTTPStatusCode")) if code is not None), None)
