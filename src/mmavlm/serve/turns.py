"""Work that waits for its turn, told as events while it waits and while it goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

from mmavlm.core.errors import MmavlmError
from mmavlm.serve.line import Line

log = logging.getLogger(__name__)

Event = dict[str, Any]
Work = Callable[["InTurn"], Generator[Event, None, None]]
Told = Callable[[str], str]  # what an error says → what may be said of it

TOLD_EVERY_S = 2.0
FAILED = "the server failed at this; its log says why"


class InTurn:
    """The events of `work`, once it is first in the line: `{"waiting": 2}` until then.

    An error ends them, as an event. Who stops listening calls `close`, begun or not.
    """

    def __init__(self, line: Line, work: Work, told: Told = str) -> None:
        """Stand in the line.

        Raises:
            BusyError: if it is full.
        """
        self._line, self._told = line, told
        self._place = line.enter()
        self._left = False
        self._events = self._run(work)

    def __iter__(self) -> InTurn:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def close(self) -> None:
        """Stop the work, and let the next one come."""
        try:
            self._events.close()
        finally:
            self._line.leave(self._place)

    def leave(self) -> None:
        """Have another thread, which takes the events, find no more of them."""
        self._left = True

    def let_others(self) -> Iterator[Event]:
        """Stand in the line again if others wait: for work that takes long and has pauses."""
        if len(self._line) > 1:
            self._line.leave(self._place)
            self._place = self._line.enter(again=True)
            yield from self._waited()

    def _waited(self) -> Iterator[Event]:
        while (before := self._line.wait(self._place, TOLD_EVERY_S)) and not self._left:
            yield {"waiting": before}

    def _run(self, work: Work) -> Generator[Event, None, None]:
        try:
            yield from self._waited()
            with closing(work(self)) as events:
                while not self._left and (event := next(events, None)) is not None:
                    self._line.check()
                    yield event
        except MmavlmError as error:
            yield {"error": self._told(str(error))}
        except Exception:
            log.exception("an answer failed")
            yield {"error": FAILED}
        finally:
            self._line.leave(self._place)


class Until:
    """A moment after which work is given up."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end_s = time.monotonic() + seconds

    def check(self) -> None:
        """Stop here if it is over; raises MmavlmError."""
        if time.monotonic() > self._end_s:
            raise MmavlmError(
                f"it took longer than {self._seconds:g} seconds and was given up; ask for less, or "
                "start the server with answer_s=…"
            )
