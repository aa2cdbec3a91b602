"""A film that was watched as it ran, what was scored and said meanwhile, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict

MOST_S = 10_000_000  # half of it is a day at 60 frames a second, counted as seconds


def _whole_characters(text: str) -> str:
    """The text, if it can be written as UTF-8."""
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError("holds half of a character, which no UTF-8 has; write it again")
    return text


Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Seconds = Annotated[float, Strict(), Field(ge=0, le=MOST_S, allow_inf_nan=False)]
Text = Annotated[str, Strict(), AfterValidator(_whole_characters)]
# published files have numbers and texts as names of questions, for the same question
Name = Annotated[
    str, BeforeValidator(lambda v: str(v) if type(v) is int else v), Field(min_length=1)
]
Rating = Annotated[int, Strict(), Field(ge=0, le=4)]


@dataclass(frozen=True)
class Said:
    """A text, and the second of the film at which it was said."""

    time_s: Seconds
    text: Text

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Watched:
    """One question about one film of `duration_s`, watched frame by frame.

    `times_s` (T) are those of the frames, in order; `scores` has a number a frame for each head, by
    its name, such as `informative` and `relevance`. `replies` and `queries` are in order of time.

    Raises:
        ValueError: if a head has not one score a frame, or something is out of order.
    """

    question_id: Name
    duration_s: Seconds
    times_s: tuple[Seconds, ...]
    scores: dict[Text, tuple[Number, ...]]
    replies: tuple[Said, ...] = ()
    queries: tuple[Said, ...] = ()

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        frames = len(self.times_s)
        for head, scores in self.scores.items():
            if len(scores) != frames:
                raise ValueError(
                    f"scores.{head} must have one number a frame: {frames} frames have times_s, "
                    f"got {len(scores)} scores"
                )
        for before_s, time_s in pairwise(self.times_s):
            if time_s <= before_s:
                raise ValueError(f"times_s must increase, but {time_s:g} s follows {before_s:g} s")
        for name, said in (("replies", self.replies), ("queries", self.queries)):
            for before, after in pairwise(said):
                if after.time_s < before.time_s:
                    raise ValueError(
                        f"{name} must be in order of time, but that at {after.time_s:g} s follows "
                        f"that at {before.time_s:g} s"
                    )


@dataclass(frozen=True)
class Event:
    """Something that happens from `start_s` to `end_s`, equal for an instant, and its words.

    Raises:
        ValueError: if it ends before it starts.
    """

    start_s: Seconds
    end_s: Seconds
    text: Text = ""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if self.end_s < self.start_s:
            raise ValueError(f"ends before it starts, got {self.start_s:g} to {self.end_s:g} s")


@dataclass(frozen=True)
class EventTruth:
    """What is to be found in a film: relevant spans, captioned segments, or answers with evidence.

    There may be none, and then nothing is to be said. `queries` are what the model is asked, in
    order of time.
    """

    question_id: Name
    video_id: Name
    events: tuple[Event, ...]
    queries: tuple[Said, ...] = ()

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class HighlightTruth:
    """How salient three annotators found clips of two seconds, 0 to 4; clips left out are 0.

    `ratings` are of `clips`, counted from 0.

    Raises:
        ValueError: if a clip has no ratings, is there twice, or lies behind the film's end.
    """

    question_id: Name
    video_id: Name
    duration_s: Seconds
    clips: tuple[Annotated[int, Strict(), Field(ge=0)], ...]
    ratings: tuple[tuple[Rating, Rating, Rating], ...]

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if len(self.clips) != len(self.ratings):
            raise ValueError(
                f"every clip must have its ratings, got {len(self.clips)} clips and "
                f"{len(self.ratings)} ratings"
            )
        if len(set(self.clips)) < len(self.clips):
            raise ValueError(f"a clip must be there once, got {list(self.clips)}")
        if self.clips and max(self.clips) >= int(self.duration_s / 2):
            raise ValueError(
                f"clip {max(self.clips)} lies behind the end of a film of {self.duration_s:g} s, "
                f"which has {int(self.duration_s / 2)} clips of 2 s"
            )


Truth = EventTruth | HighlightTruth
