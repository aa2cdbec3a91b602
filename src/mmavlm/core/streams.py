"""Streams of frames in conversations: which frames stand between what is said, and their labels."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import DataError
from mmavlm.core.turns import FrameLabels, Role, Shown, Turn

INFORMATIVE, RELEVANCE = "informative", "relevance"  # the published heads (MMDuet, section 3)
IGNORED = -100  # the label of a frame of which a head learns nothing; as torch has it
SAME_TIME_S = 1e-3  # times of frames are kept in single precision, those of annotations are not


def is_streamed(talk: Conversation) -> bool:
    """Whether a film runs while others speak."""
    return any(turn.role == "stream" for turn in talk.turns)


def streamed(talk: Conversation, times_s: Sequence[Sequence[float]]) -> Conversation:
    """The same with the frames of each stream, now that their times in each medium are known.

    A user speaks in front of the first frame that is not earlier, the assistant behind it. A stream
    without frames is left out; of two answers that then follow each other the second stays. All
    that is said behind the last frame that was taken of the film is left out, and nothing is
    informative in the stream before it. (MMDuet, section 3.)
    """
    if not is_streamed(talk):
        return talk
    turns: list[Turn] = []
    shown = [0] * len(talk.media)
    following: list[Role | None] = [*(turn.role for turn in talk.turns[1:]), None]
    for turn, follows in zip(talk.turns, following, strict=True):
        if turn.role != "stream":
            if turn.role == "assistant" and turns and turns[-1].role == "assistant":
                turns.pop()
            turns.append(turn)
            continue
        medium = medium_of(turn)
        start, times = shown[medium], times_s[medium]
        stop = _stop(times, turn.until_s, follows)
        cut = turn.until_s is not None and turn.until_s > times[-1] + _step(times)
        if stop > start:
            shown[medium] = stop
            _append(turns, _with_frames(turn, start, times[start:stop], cut))
        if cut:
            break
    return replace(talk, turns=tuple(turns))


def silent(talk: Conversation) -> Conversation:
    """The same without answers: what a model sees that has said nothing so far."""
    turns: list[Turn] = []
    for turn in talk.turns:
        if turn.role == "stream":
            _append(turns, turn)
        elif turn.role != "assistant":
            turns.append(turn)
    return replace(talk, turns=tuple(turns))


def labels_of(turn: Turn, times_s: Sequence[float]) -> dict[str, list[int]]:
    """Head → what it is to say of each frame that a stream shows of a film with these times."""
    start, stop = frames_of(turn)
    return {
        label.head: [
            int(any(a - SAME_TIME_S <= time_s <= b + SAME_TIME_S for a, b in label.spans_s))
            for time_s in times_s[start:stop]
        ]
        for label in turn.labels
    }


def _stop(times: Sequence[float], until_s: float | None, follows: Role | None) -> int:
    if until_s is None:
        return len(times)
    return min(bisect_left(times, until_s - SAME_TIME_S) + (follows != "user"), len(times))


def _step(times: Sequence[float]) -> float:
    return times[-1] - times[-2] if len(times) > 1 else float("inf")


def _with_frames(turn: Turn, start: int, times_s: Sequence[float], cut: bool) -> Turn:
    """The stream with the frames at these times, the first of them number `start`."""
    labels, last_s = [], times_s[-1]
    for label in turn.labels:
        spans = label.spans_s
        if cut and label.head == INFORMATIVE:
            spans = ()
        elif turn.until_s is not None:  # the last frame may be a little later, or earlier
            until_s = turn.until_s
            spans = tuple(
                (min(a, last_s), max(b, last_s)) if b >= until_s else (a, b) for a, b in spans
            )
        labels.append(replace(label, spans_s=spans))
    part = Shown(medium_of(turn), (start, start + len(times_s)), tuple(times_s))
    return replace(turn, parts=(part,), labels=tuple(labels))


def _append(turns: list[Turn], turn: Turn) -> None:
    """Add a stream, as one with the stream it follows."""
    before = turns[-1] if turns else None
    if before is None or before.role != "stream" or medium_of(before) != medium_of(turn):
        turns.append(turn)
        return
    spans = {label.head: label.spans_s for label in before.labels}
    labels = [FrameLabels(x.head, (*spans.pop(x.head, ()), *x.spans_s)) for x in turn.labels]
    labels += [FrameLabels(head, rest) for head, rest in spans.items()]
    span = frames_of(before)[0], frames_of(turn)[1]
    part = Shown(medium_of(turn), span, (*times_of(before), *times_of(turn)))
    turns[-1] = replace(turn, parts=(part,), labels=tuple(labels), guide=before.guide)


def frames_of(turn: Turn) -> tuple[int, int]:
    """From which frame of its film a stream is, and up to which.

    Raises:
        DataError: if its frames are not known yet (see `streamed`).
    """
    frames = [part.frames for part in turn.parts if isinstance(part, Shown) and part.frames]
    if not frames:
        raise DataError("the frames of a stream are not known; see core.streams.streamed")
    return frames[0][0], frames[-1][1]


def times_of(turn: Turn) -> tuple[float, ...]:
    """When the frames are that a stream shows, in seconds; nothing where that is not known."""
    shown = [part.times_s for part in turn.parts if isinstance(part, Shown)]
    return tuple(chain.from_iterable(shown))


def medium_of(turn: Turn) -> int:
    """The number of the medium that a stream shows."""
    return next(part.medium for part in turn.parts if isinstance(part, Shown))
