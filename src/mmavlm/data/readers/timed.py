"""What is said at which second of a film: turns, answers and spans, read and checked."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from mmavlm.core.errors import ConfigError
from mmavlm.core.turns import Span
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.values import MOST, absent, as_seconds, shown

VIDEO = ("video_uid", "video")  # the keys of a film's name
USUAL_SHARE = (0.5, 0.75)  # of its segment, at which a caption is said (MMDuet)


class Said(NamedTuple):
    """A text that the user or the assistant says at a second of the film.

    `span_s` is from when to when what an answer tells is seen.
    """

    role: Literal["user", "assistant"]
    text: str
    time_s: float
    span_s: Span | None = None
    learned: bool = True


class Answer(NamedTuple):
    """A text of the assistant, from when to when it is seen, and when it is said; one may lack."""

    text: str
    span_s: Span | None
    time_s: float | None
    learned: bool = True

    @classmethod
    def of(cls, row: Row, text: str, span: str = "timespan") -> Answer:
        """That of a row, whose text and span stand under these keys, beside `time` and `learn`.

        Raises:
            DataError: naming file, row, key and what came.
        """
        said_s = row.seconds("time")
        seen_s = None if absent(row.values.get(span)) else span_s(row, span)
        if said_s is None and seen_s is None:
            raise row.error(
                f"keys 'time' and {span!r} are missing or empty; give when it is said, or from "
                "when to when it is seen"
            )
        return cls(row.text(text), seen_s, said_s, learned(row))


class Insertion:
    """When an answer is said: where its row says, or else at a share of its span that is drawn.

    `share` is one number or two, between which it is drawn; None is `USUAL_SHARE`, for those whose
    rows do not say when.

    Raises:
        ConfigError: if it is something else, or not within 0 and 1.
    """

    def __init__(self, share: float | Sequence[float] | None) -> None:
        self.given = share is not None
        bounds = USUAL_SHARE if share is None else share
        found = [bounds] if isinstance(bounds, int | float) else list(bounds)
        fits = len(found) in (1, 2) and all(type(x) in (int, float) and 0 <= x <= 1 for x in found)
        if not fits or found[0] > found[-1]:
            raise ConfigError(
                f"data.reader.insert_at={share!r}; give a share of the segment from 0 to 1, two "
                "between which it is drawn such as [0.5, 0.75], or null"
            )
        self.low, self.high = found[0], found[-1]

    def said(self, answer: Answer, drawn: random.Random) -> Said:
        """The answer at the second at which it is said."""
        text, span_s, time_s, learns = answer
        share = self.low + (self.high - self.low) * drawn.random()
        if span_s is not None and (time_s is None or self.given):
            time_s = span_s[0] + share * (span_s[1] - span_s[0])
        assert time_s is not None  # an answer has a time or a span
        return Said("assistant", text, time_s, span_s, learns)


def video_of(row: Row) -> str:
    """The name of a row's film."""
    return row.text(next((key for key in VIDEO if key in row.values), VIDEO[-1]))


def questioned(row: Row) -> list[Said]:
    """What the user says in a row's `conversation`, `{"role", "content", "time"}` each."""
    turns = row.each("conversation", "turn")
    return [
        Said("user", turn.text("content"), turn.seconds("time") or 0.0)
        for turn in turns
        if role_of(turn) == "user"
    ]


def role_of(turn: Row) -> Literal["user", "assistant"]:
    """Who says a turn.

    Raises:
        DataError: naming file, row and what came.
    """
    role = turn.text("role")
    if role not in ("user", "assistant"):
        raise turn.error(f"'role' must be user or assistant, got {shown(role)}")
    return role  # type: ignore[return-value]  # which is one of both


def learned(row: Row) -> bool:
    """Whether a turn that may say `learn` is learned.

    Raises:
        DataError: naming file, row and what came.
    """
    found = row.values.get("learn", True)
    if not isinstance(found, bool):
        raise row.error(f"'learn' must be true or false, got {shown(found)}")
    return found


def span_s(row: Row, key: str) -> Span:
    """The pair `[start, stop]` of seconds under a key.

    Raises:
        DataError: naming file, row, key and what came.
    """
    return _span_s(row, key, row.need(key))


def _span_s(row: Row, key: str, value: Any) -> Span:
    pair = [as_seconds(one) for one in value] if isinstance(value, list) else []
    if len(pair) != 2 or not 0 <= pair[0] <= pair[1] <= MOST:
        raise row.error(
            f"{key!r} must be a start and a stop in seconds, such as [1.5, 4], got {shown(value)}; "
            "correct it, or remove the row"
        )
    return pair[0], pair[1]


def spans_s(row: Row, key: str) -> tuple[Span, ...]:
    """The pairs of a list under a key, merged where they overlap, in order; there may be none.

    Raises:
        DataError: naming file, row, key and what came.
    """
    value = row.need(key)
    if not isinstance(value, list):
        raise row.error(
            f"{key!r} must be a list of pairs such as [[1.5, 4], [9, 12]], got {shown(value)}"
        )
    return merged(_span_s(row, key, one) for one in value)


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans in order, those that overlap or touch as one."""
    found: list[Span] = []
    for start_s, stop_s in sorted(spans):
        if found and start_s <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], stop_s))
        else:
            found.append((start_s, stop_s))
    return tuple(found)
