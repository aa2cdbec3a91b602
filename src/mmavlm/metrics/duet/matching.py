"""Replies and events, one to one: which reply is to which event, and how long it took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import heappop, heappush

from mmavlm.metrics.duet.watched import Event

ROUNDING_S = 1e-6  # times are sums of frames' lengths


def matches(
    events: Sequence[Event], times_s: Sequence[float], tolerance_s: float
) -> list[tuple[int, int]]:
    """Pairs (event, reply) of which each occurs once, as many as can be.

    A reply fits an event that it is no more than `tolerance_s` before or after; events are open
    from `start_s` to `end_s`. Replies, in order of time, take of the fitting events that are left
    the one that closes first, which is a maximum matching (Glover, 1967). Events of equal length
    are matched in order of time.
    """
    slack = tolerance_s + ROUNDING_S
    opening = ((event.start_s - slack, event.end_s + slack, i) for i, event in enumerate(events))
    upcoming = iter(sorted(opening))
    following = next(upcoming, None)
    fitting: list[tuple[float, int]] = []
    pairs = []
    for reply, time_s in enumerate(times_s):
        while following is not None and following[0] <= time_s:
            heappush(fitting, following[1:])
            following = next(upcoming, None)
        while fitting and fitting[0][0] < time_s:
            heappop(fitting)
        if fitting:
            pairs.append((heappop(fitting)[1], reply))
    return pairs


def delays_s(events: Sequence[Event], times_s: Sequence[float]) -> list[float]:
    """Seconds from the start of each event that was answered to the first reply after it.

    A reply after the next event's start is no answer to the one before.
    """
    found = []
    ordered = sorted({event.start_s for event in events})
    for start_s, until_s in zip(ordered, [*ordered, math.inf][1:], strict=True):
        first = next((t for t in times_s if start_s <= t < until_s), None)
        if first is not None:
            found.append(first - start_s)
    return found


def repeats(texts: Sequence[str]) -> int:
    """How many texts were there before; case and spaces do not count."""
    return len(texts) - len({plain(text) for text in texts})


def plain(text: str) -> str:
    """A text without what makes no difference between replies: case and spaces."""
    return " ".join(text.lower().split())
