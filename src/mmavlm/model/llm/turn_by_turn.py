"""Conversations in which a film runs as token ids: turn by turn, as they come.

Nobody can tokenise as one text what is not said yet. So each turn is tokenised by itself, with what
stands in front of it and behind it; all of a conversation is its turns, one behind the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.streams import frames_of, times_of
from mmavlm.core.turns import Line, Role, Shown, Turn
from mmavlm.model.llm.answers import Answers
from mmavlm.model.llm.around_turns import AroundTurns
from mmavlm.model.llm.said import Said
from mmavlm.model.plain_text import PlainTokenizer

Span = tuple[int, int]
StreamTimes = Literal["turn", "frame"]  # times stand at the start of each stream, or at each frame
Asked = Callable[[Turn, bool], tuple[list[int], list[int]]]


class Pieces(NamedTuple):
    """Ids, in front of which of them media stand, and which frames of a medium stand there."""

    ids: list[int]
    media_at: list[int]
    frames: list[Span]


class Joined(NamedTuple):
    """Ids of turns, where media stand, which ids are learned, which frames stand where."""

    ids: list[int]
    media_at: list[int]
    learned: list[Span]
    frames: list[Span | None]


class TurnByTurn:
    """Ids of single turns, the `first` of a conversation among them.

    `around` is what a chat template writes around turns. Without one (None) `asked` gives the ids
    of a turn of the user or the system, and where its media stand. `times` says in front of which
    frames of a stream their times are written.

    Raises:
        ConfigError: if `times` is none of these.
    """

    def __init__(
        self,
        plain: PlainTokenizer,
        said: Said,
        answers: Answers,
        asked: Asked,
        around: AroundTurns | None,
        times: StreamTimes | None = None,
    ) -> None:
        if times not in (None, *get_args(StreamTimes)):
            raise ConfigError(
                f"llm.stream_times is {times!r}; expected null, or one of "
                f"{', '.join(get_args(StreamTimes))}"
            )
        self._times = times
        self._plain = plain
        self._said = said
        self._answers = answers
        self._asked = asked if around is None else self._in_template
        self._front = plain.affixes[0] if around is None else []
        self._around = around or AroundTurns()

    def opening(self, role: Role, *, first: bool = False) -> list[int]:
        """What stands in front of frames or of an answer."""
        front = self._around.front[role] if first else ""
        ids = self._plain.ids("", before=front + self._around.opening[role])
        return [*(self._front if first else []), *ids]

    def closing(self, role: Role) -> list[int]:
        """What stands behind frames, or behind the end of an answer."""
        closing = self._around.closing[role]
        if role == "assistant" and closing.lstrip().startswith(self._answers.written_end):
            closing = closing.lstrip()[len(self._answers.written_end) :]
        return self._plain.ids("", before=closing)

    def said(self, turn: Turn, *, first: bool = False) -> tuple[list[int], list[int]]:
        """Ids of an entire turn of the user or the system, and where its media stand."""
        return self._asked(turn, first)

    def answer(self, text: str) -> list[int]:
        """Ids of an answer with its end; see `Answers.ids`."""
        return self._answers.ids(text)

    def time(self, time_s: float | None, *, first: bool) -> list[int]:
        """What stands in front of a frame, which may be the `first` of its stream.

        The text is that of Qwen3-VL. Times of films are kept in single precision and those of
        cameras are not; rounded to milliseconds first, both are written alike.

        Raises:
            ConfigError: if times are written, and this one is not known.
        """
        if self._times is None:
            return []
        if time_s is None:
            raise ConfigError(
                f"llm.stream_times={self._times} writes when frames are, and the time of one is "
                "not known; give it with the frame, or set llm.stream_times=null"
            )
        if self._times == "turn" and not first:
            return []
        return self._plain.ids(f"<{round(time_s, 3):.1f} seconds>")

    def frames(self, turn: Turn, *, latest: bool) -> Pieces:
        """What stands between the opening and the closing of a stream: see `joined_turns`."""
        ids: list[int] = []
        places: list[int] = []
        spans: list[Span] = []
        for part in _in_pieces(turn, each=self._times == "frame", latest=latest):
            if isinstance(part, Line):
                ids += self._plain.ids(f"\n{part.text}\n")
                continue
            if part.frames is None:
                raise DataError("the frames of a stream are not known; see core.streams.streamed")
            time_s = part.times_s[-1 if latest else 0] if part.times_s else None
            ids += self.time(time_s, first=not places)
            places.append(len(ids))
            spans.append(part.frames)
        return Pieces(ids, places, spans)

    def _in_template(self, turn: Turn, first: bool) -> tuple[list[int], list[int]]:
        role = turn.role
        before = (self._around.front[role] if first else "") + self._around.opening[role]
        before, behind = self._said.with_films([before, self._around.closing[role]], [turn])
        text = before + self._said.text(turn) + behind
        ids, media_at, _ = self._said.tokenised(text, [])
        return ids, media_at


def joined_turns(write: TurnByTurn, turns: Sequence[Turn], *, latest: bool = False) -> Joined:
    """Turns one behind the other.

    `latest`: the newest look of a stream, of all frames so far, stands for those before it; so it
    stands alone, behind its own time.
    """
    joined = Joined([], [], [], [])
    for n, turn in enumerate(turns):
        ids = joined.ids
        if turn.role in ("user", "system"):
            said, places = write.said(turn, first=n == 0)
            joined.media_at.extend(len(ids) + place for place in places)
            joined.frames.extend(part.frames for part in turn.parts if isinstance(part, Shown))
            ids += said
            continue
        ids += write.opening(turn.role, first=n == 0)
        start = len(ids)
        if turn.role == "assistant":
            ids += write.answer(turn.text)
            joined.learned.extend([(start, len(ids))] if turn.learned else [])
        else:
            shown = write.frames(turn, latest=latest)
            joined.media_at.extend(start + place for place in shown.media_at)
            joined.frames.extend(shown.frames)
            ids += shown.ids
        ids += write.closing(turn.role)
    return joined


def _in_pieces(turn: Turn, *, each: bool, latest: bool) -> Iterator[Shown | Line]:
    """What a stream shows, part by part: `each` frame by itself, or the `latest` for all."""
    shown = [part for part in turn.parts if isinstance(part, Shown)]
    for part in turn.parts:
        if isinstance(part, Line):
            yield part
        elif isinstance(part, Shown) and latest:
            if part is shown[-1]:
                yield Shown(part.medium, frames_of(turn), times_of(turn))
        elif isinstance(part, Shown) and each and part.frames is not None:
            yield from (part.only(frame, frame + 1) for frame in range(*part.frames))
        elif isinstance(part, Shown):
            yield part
