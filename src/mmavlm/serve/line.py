"""One after the other, in the order of coming: a model answers one question at a time."""

from __future__ import annotations

from collections import deque
from threading import Condition

from mmavlm.core.errors import MmavlmError


class BusyError(MmavlmError):
    """Too many wait already."""


class ClosedError(MmavlmError):
    """The server is about to end."""


class Line:
    """A line of which the first is served; at most `most` stand behind the first.

    Any thread may stand in it: `enter`, `wait` until nobody is before, and `leave` in any case.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._places: deque[object] = deque()
        self._changed = Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._places)

    def enter(self, *, again: bool = False) -> object:
        """Take a place at the end; who was there before may do so `again` in a full line.

        Raises:
            BusyError: if the line is full.
        """
        with self._changed:
            if len(self._places) > self.most and not again:
                raise BusyError(
                    f"{len(self._places)} questions are being answered or wait, which is all that "
                    "are taken at once; ask again in a minute"
                )
            place = object()
            self._places.append(place)
            return place

    def wait(self, place: object, seconds: float) -> int:
        """How many are before a place, after waiting for that to change, or `seconds`.

        Raises:
            ClosedError: if the line is closed.
        """
        with self._changed:
            before = self._before(place)
            if before:
                self._changed.wait_for(
                    lambda: self._closed or self._before(place) != before, seconds
                )
            self.check()
            return self._before(place)

    def leave(self, place: object) -> None:
        """Give a place up, served or not."""
        with self._changed:
            if place in self._places:
                self._places.remove(place)
            self._changed.notify_all()

    def close(self) -> None:
        """Serve nobody any more; a signal may say so."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def check(self) -> None:
        """Do nothing as long as the line is open.

        Raises:
            ClosedError: if it is closed.
        """
        if self._closed:
            raise ClosedError("the server was told to end; start it anew, and ask again")

    def _before(self, place: object) -> int:
        return self._places.index(place)
