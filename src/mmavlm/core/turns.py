"""Turns of conversations: who says what, and which medium is shown where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mmavlm.core.errors import DataError

Role = Literal["system", "user", "assistant", "stream"]
ROLES = get_args(Role)
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Shown:
    """The part of a turn that shows a medium, by its number in the conversation.

    With `frames` (start, stop) it shows these of the frames that are taken of a film, and the parts
    behind it show the next ones. `times_s` are their seconds in the film, where these are known.

    Raises:
        DataError: if there are times, and not one a frame.
    """

    medium: int = 0
    frames: tuple[int, int] | None = None
    times_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.times_s and (self.frames is None or len(self.times_s) != self._count):
            raise DataError(
                f"a turn shows the frames {self.frames} of medium {self.medium} with "
                f"{len(self.times_s)} times_s; expected one a frame, or none"
            )

    def only(self, start: int, stop: int) -> Shown:
        """The same with no frames but these of its own."""
        since = 0 if self.frames is None else self.frames[0]
        return Shown(self.medium, (start, stop), self.times_s[start - since : stop - since])

    @property
    def _count(self) -> int:
        return 0 if self.frames is None else self.frames[1] - self.frames[0]

    @property
    def begins(self) -> bool:
        """Whether a view of the medium begins here, and does not go on."""
        return self.frames is None or self.frames[0] == 0


@dataclass(frozen=True, slots=True)
class Line:
    """What is said in a film between the frames around it; no part of what a turn asks."""

    text: str


@dataclass(frozen=True, slots=True)
class FrameLabels:
    """What a `head` is to say of the frames of a stream: 1 in any of the spans, else 0.

    Spans are (start, stop) in seconds of the film, both included.

    Raises:
        DataError: if a span stops before it starts.
    """

    head: str
    spans_s: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        for start_s, stop_s in self.spans_s:
            if not start_s <= stop_s:
                raise DataError(
                    f"the head {self.head} is labelled from {start_s} to {stop_s} s; expected a "
                    "stop that is not before its start"
                )


FIRST = Shown(0)
Part = str | Shown | Line


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says: texts and, unless it is the assistant, media.

    `learned`: the model is trained to say this; only for the assistant. `guide`: under which text
    the media are seen, where that is not the turn's own; the language model does not read it.

    A stream shows frames of one film and says nothing. `until_s` is the second at which what
    follows is said, None at the end; `labels` are what heads learn there. Readers show the film
    and leave its frames out: which of them a stream has is known when they are read (`streamed`).

    Raises:
        DataError: if the role is unknown, there is nothing in the turn, what it holds is not for
            its role, or a text is none.
    """

    role: Role
    parts: tuple[Part, ...]
    learned: bool = False
    guide: str | None = None
    until_s: float | None = None
    labels: tuple[FrameLabels, ...] = ()

    def __post_init__(self) -> None:
        # plain loops: a set has a hundred thousand turns
        if self.role not in ROLES:
            known = ", ".join(ROLES)
            raise DataError(f"a turn has the role {self.role!r}; expected one of {known}")
        empty, before = True, None
        for part in self.parts:
            if isinstance(part, str):
                empty = empty and not part.strip()
                if not part.isascii():
                    _check_text(part, self.role)
                continue
            empty = False
            if self.role == "assistant":
                raise DataError("the turn of the assistant shows a medium; only other turns can")
            if type(part) is Shown:
                if part.frames is not None and (before is not None or self.role != "stream"):
                    _check_goes_on(part, before)
                before = part
        if empty:
            raise DataError(f"the turn of the {self.role} is empty; give it a text, or take it out")
        if self.learned and self.role != "assistant":
            raise DataError(f"the turn of the {self.role} is learned; only the assistant's can be")
        if self.role == "stream":
            _check_stream(self)
        elif self.until_s is not None or self.labels:
            raise DataError(
                f"the turn of the {self.role} has a time or labels of frames; only a stream has"
            )
        if self.guide is not None and not self.shows:
            raise DataError(
                f"the turn of the {self.role} has a guide, and shows no medium that is seen under "
                "it; show one, or take the guide out"
            )

    @property
    def text(self) -> str:
        """Its texts, one behind the other."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def without_media(self) -> Turn:
        """The same turn without what it shows."""
        return replace(self, parts=tuple(p for p in self.parts if not isinstance(p, Shown)))

    @property
    def shows(self) -> tuple[int, ...]:
        """The numbers of the media it shows, in order; one that is shown in parts once."""
        return tuple(part.medium for part in self.parts if isinstance(part, Shown) and part.begins)


def _check_text(text: str, role: Role) -> None:
    """Refuse halves of signs, which no tokenizer reads; a byte that is no UTF-8 becomes one."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the turn of the {role} holds {text[error.start]!r}, which is no sign of a text; "
            "write it in UTF-8"
        ) from None


def _check_stream(turn: Turn) -> None:
    """Refuse a stream that says something, or shows other than one film."""
    shown = {part.medium for part in turn.parts if type(part) is Shown}
    if len(shown) != 1 or any(isinstance(part, str) for part in turn.parts):
        raise DataError(
            f"a stream shows the media {sorted(shown)} and has the text {turn.text!r}; expected "
            "frames of one film, and no text"
        )


def _check_goes_on(part: Shown, before: Shown | None) -> None:
    """Refuse frames that neither are a medium's first nor follow those shown right before."""
    start, stop = part.frames or (0, 0)
    same = before is not None and before.medium == part.medium
    shown = before.frames if same and before is not None else None
    if stop <= start or start not in (0, 0 if shown is None else shown[1]):
        raise DataError(
            f"a turn shows the frames {start} to {stop} of medium {part.medium}; expected at least "
            "one, from the first on or right behind those it has shown of it"
        )


def check_order(turns: Sequence[Turn]) -> None:
    """Refuse turns that do not stand in the order of a conversation.

    User and assistant take turns, the user first. Around streams the user may speak at any time,
    several times if need be, and the assistant behind a stream or the user.

    Raises:
        DataError: naming the first that is out of order.
    """
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    streams = any(turn.role == "stream" for turn in spoken)
    before: Role = "assistant"
    for number, turn in enumerate(spoken):
        expected: tuple[Role, ...] = ("user",) if before == "assistant" else ("assistant",)
        if streams:
            expected = tuple(r for r in ("user", "assistant", "stream") if r not in _NOT[before])
        if turn.role not in expected:
            raise DataError(
                f"turn {number + 1} of a conversation is the {turn.role}'s; expected one of the "
                f"{' or the '.join(expected)}: "
                + (_STREAMED if streams else "they take turns, and the user begins")
            )
        before = turn.role


_NOT = {"assistant": {"assistant"}, "stream": {"stream"}, "user": set[str]()}
_STREAMED = "frames that follow each other are one stream, and an answer follows frames or a user"


def plain_turn(turn: Turn) -> dict[str, Any]:
    """Plain values, of which `turn_of` makes it again."""
    learned = {"learned": True} if turn.learned else {}
    guide = {} if turn.guide is None else {"guide": turn.guide}
    until = {} if turn.until_s is None else {"until_s": turn.until_s}
    spans = {label.head: [list(span) for span in label.spans_s] for label in turn.labels}
    labels = {"labels": spans} if spans else {}
    parts = [*map(_plain_part, turn.parts)]
    return {"role": turn.role, "parts": parts, **learned, **guide, **until, **labels}


def _labels(values: tuple[str, Sequence[Sequence[float]]]) -> FrameLabels:
    head, spans = values
    return FrameLabels(head, tuple((float(start_s), float(stop_s)) for start_s, stop_s in spans))


def _plain_part(part: Part) -> str | dict[str, Any]:
    if isinstance(part, str):
        return part
    if isinstance(part, Line):
        return {"line": part.text}
    frames = {} if part.frames is None else {"frames": list(part.frames)}
    times = {"times_s": list(part.times_s)} if part.times_s else {}
    return {"medium": part.medium, **frames, **times}


def _part(values: str | Mapping[str, Any]) -> Part:
    if isinstance(values, str):
        return values
    if "line" in values:
        return Line(str(values["line"]))
    if (frames := values.get("frames")) is None:
        return Shown(int(values["medium"]))
    start, stop = map(int, frames)
    times_s = tuple(map(float, values.get("times_s", ())))
    return Shown(int(values["medium"]), (start, stop), times_s)


def turn_of(values: Mapping[str, Any]) -> Turn:
    """The turn of such values; raises KeyError, TypeError or ValueError for others."""
    return Turn(
        values["role"],
        tuple(map(_part, values["parts"])),
        bool(values.get("learned", False)),
        None if values.get("guide") is None else str(values["guide"]),
        None if values.get("until_s") is None else float(values["until_s"]),
        tuple(map(_labels, values.get("labels", {}).items())),
    )
