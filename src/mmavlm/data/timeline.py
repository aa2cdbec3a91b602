"""When frames are shown whose packets do not tell: all are decoded once, in order.

Films joined end to end count from the start again, edit lists show parts twice or in another order,
raw streams have no times, and some files number packets as they come rather than as they are shown.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from mmavlm.core.errors import VideoError
from mmavlm.data.containers import opened, reason

log = logging.getLogger(__name__)

Ticks = NDArray[np.int64]

# In these a receiver expects clocks that are set anew, so that a leap is no pause.
CLOCKS_MAY_LEAP = ("mpegts", "mpeg")
LEAP_S = 10.0
# A time that steps back by more than this is of another film, joined on.
STEP_BACK_S = 0.1
UNKNOWN_RATE = 25


class Told(NamedTuple):
    """What a decoder says of a frame, in ticks: display time, decoding time, duration."""

    pts: int | None
    dts: int | None
    duration: int


@dataclass(frozen=True)
class Timeline:
    """The times of all frames in ticks, strictly ascending, in the order in which they decode.

    `as_told` says that they are those of the packets, untouched; `step` is the usual distance.
    """

    pts: Ticks
    step: int
    as_told: bool


def decoded_timeline(path: Path) -> Timeline:
    """Decode all frames for their times; of films joined end to end, these go on.

    Raises:
        VideoError: if a frame cannot be decoded, or none comes.
    """
    with opened(path) as (container, stream):
        rate = stream.guessed_rate or stream.average_rate or UNKNOWN_RATE
        step = max(1, round(1 / (rate * stream.time_base)))
        told = list(_told(path, container, stream))
        if not told:
            raise VideoError(f"{path} ({stream.codec_context.name}) holds no frame that decodes")
        if all(frame.pts is None and frame.dts is None for frame in told):
            _say_once(f"{path} has no times; its frames are taken at {float(rate):g} a second")
        times = _without_gaps(_guessed(told), [frame.duration or step for frame in told])
        leap_s = LEAP_S if container.format.name in CLOCKS_MAY_LEAP else np.inf
        tick_s = float(stream.time_base)
        pts = _going_on(times, step, round(STEP_BACK_S / tick_s), leap_s / tick_s)
        return Timeline(pts, step, as_told=pts.tolist() == [frame.pts for frame in told])


def _told(path: Path, container: Any, stream: Any) -> Iterator[Told]:
    """What the decoder says of each frame."""
    came = 0
    # left to the collector, PyAV's generators leave 150 bytes of every film behind
    with closing(container.decode(stream)) as frames:
        try:
            for frame in frames:
                came += 1
                yield Told(frame.pts, frame.dts, frame.duration or 0)
        except (av.FFmpegError, EOFError) as error:
            raise VideoError(
                f"{path} ({stream.codec_context.name}) breaks off after {came} frames: "
                f"{reason(error)}"
            ) from error


def _guessed(told: Sequence[Told]) -> list[int | None]:
    """The display times, or the decoding times where these ascend more often.

    Decoders give frames in the order in which they are shown, so times that do not ascend are
    wrong. FFmpeg guesses by the same rule (`best_effort_timestamp`), but frame by frame.
    """
    by_pts = [dts if pts is None else pts for pts, dts, _ in told]
    by_dts: list[int | None] = []
    for pts, dts, duration in told:
        last = by_dts[-1] if by_dts else None
        if dts is None and last is not None:  # as the last frames, which no packet follows
            counted = last + duration
            by_dts.append(counted if pts is None else min(counted, pts))
        else:
            by_dts.append(dts)
    known = [i for i, frame in enumerate(told) if frame.dts is not None]
    wrong_pts, wrong_dts = (
        int((np.diff(np.array([of[i] for i in known], np.int64)) <= 0).sum())
        for of in (by_pts, by_dts)
    )
    return by_pts if wrong_pts <= wrong_dts else by_dts


def _without_gaps(times: Sequence[int | None], durations: Sequence[int]) -> list[int]:
    """The times; those that lack are counted on from the one before, or back from the first."""
    first = next((i for i, time in enumerate(times) if time is not None), 0)
    ends = (times[first] or 0) - sum(durations[:first])
    filled = []
    for time, duration in zip(times, durations, strict=True):
        filled.append(ends if time is None else time)
        ends = filled[-1] + duration
    return filled


def _going_on(times: Sequence[int], step: int, back: int, leap: float) -> Ticks:
    """Strictly ascending times: a film that is joined on begins where the one before it ends.

    One that is late by up to `back` ticks comes right behind the one before it.
    """
    shift, last = 0, times[0] - 1
    moved = []
    for i, time in enumerate(times):
        if i and not -back <= time + shift - last <= leap:
            shift = last + step - time
        last = max(time + shift, last + 1)
        moved.append(last)
    return np.array(moved, np.int64)


@lru_cache
def _say_once(message: str) -> None:
    log.warning(message)
