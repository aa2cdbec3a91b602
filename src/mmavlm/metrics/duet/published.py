"""Published formats of predictions and annotations → our values.

MMDuet's test files (arXiv 2411.17991, its repository at 33be138) and QVHighlights' rows
(arXiv 2107.09609).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, Strict

from mmavlm.core.streams import INFORMATIVE, RELEVANCE
from mmavlm.metrics.duet.watched import (
    Event,
    EventTruth,
    HighlightTruth,
    Name,
    Rating,
    Said,
    Seconds,
    Text,
    Watched,
)

HEADS = (INFORMATIVE, RELEVANCE)
ROUNDED = 0.01  # published scores have three decimals


def _probability(value: Any) -> Any:
    """The probability of yes where older files hold those of no and yes."""
    if not isinstance(value, list):
        return value
    numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(value) != 2 or len(numbers) != 2 or abs(sum(numbers) - 1) > ROUNDED:
        raise ValueError("must be a probability, or those of no and yes, which sum to 1")
    return numbers[1]


Probability = Annotated[
    float, Strict(), Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(_probability)
]


class Turn(BaseModel):
    """A turn of a conversation at a second of the film."""

    role: Literal["user", "assistant"]
    content: Text
    time: Seconds
    timespan: tuple[Seconds, Seconds] | None = None

    @property
    def event(self) -> Event:
        """What a true turn of the assistant is about: its span, or the moment it is said."""
        return Event(*(self.timespan or (self.time, self.time)), self.content)


class Frame(BaseModel):
    """The scores of a frame; older files call its time `video_time`."""

    time: Seconds = Field(validation_alias=AliasChoices("time", "video_time"))
    informative_score: Probability | None = None
    relevance_score: Probability | None = None


class PublishedPrediction(BaseModel):
    """A row of MMDuet's predictions."""

    question_id: Name
    video_duration: Seconds
    model_response_list: list[Turn]
    debug_data: list[Frame] = []

    def watched(self) -> Watched:
        """The same as our value.

        Raises:
            ValueError: if frames have the scores of a head only in part, or are out of order.
        """
        scores: dict[str, tuple[float, ...]] = {}
        for head in HEADS:
            found = [getattr(frame, f"{head}_score") for frame in self.debug_data]
            there = tuple(score for score in found if score is not None)
            if 0 < len(there) < len(found):
                raise ValueError(
                    f"{head}_score must be there for all frames or for none, got {len(there)} of "
                    f"{len(found)}"
                )
            if there:
                scores[head] = there
        return Watched(
            self.question_id,
            self.video_duration,
            tuple(frame.time for frame in self.debug_data),
            scores,
            _said(self.model_response_list, "assistant"),
            _said(self.model_response_list, "user"),
        )


class Answer(BaseModel):
    """A true answer or caption, and where its evidence is seen."""

    content: Text
    time: tuple[Seconds, Seconds]


class PublishedQuestion(BaseModel):
    """An entry of MMDuet's annotation: `timestamps` of a search, or `answer`s with times.

    In files for training `video` is named `video_uid`, the answers are turns of the conversation,
    and the `query` of a search stands alone.
    """

    question_id: Name
    video: Name | None = None
    video_uid: Name | None = None
    conversation: list[Turn] = []
    query: Text | None = None
    timestamps: list[tuple[Seconds, Seconds]] | None = None
    answer: list[Answer] | None = None

    def truth(self) -> EventTruth:
        """The same as our value.

        Raises:
            ValueError: if the film has no name, or nothing says what is true of it.
        """
        video = self.video or self.video_uid
        if video is None:
            raise ValueError("key 'video' is missing")
        if self.timestamps is None and self.answer is None and self.video_uid is None:
            raise ValueError("key 'timestamps' or 'answer' is missing: one says what is true")
        events = [Event(start, end) for start, end in self.timestamps or ()]
        events += [Event(*one.time, one.content) for one in self.answer or ()]
        if self.timestamps is None and self.answer is None:
            events = [turn.event for turn in self.conversation if turn.role == "assistant"]
        asked = _said(self.conversation, "user")
        if self.query is not None and not asked:
            asked = (Said(0.0, self.query),)
        return EventTruth(self.question_id, video, tuple(events), asked)


class QVHighlightsRow(BaseModel):
    """A row of QVHighlights' annotation."""

    qid: Name
    vid: Name
    duration: Seconds
    relevant_clip_ids: list[Annotated[int, Strict(), Field(ge=0)]]
    saliency_scores: list[tuple[Rating, Rating, Rating]]

    def truth(self) -> HighlightTruth:
        """The same as our value."""
        return HighlightTruth(
            self.qid,
            self.vid,
            self.duration,
            tuple(self.relevant_clip_ids),
            tuple(self.saliency_scores),
        )


def _said(turns: list[Turn], role: str) -> tuple[Said, ...]:
    of_role = (turn for turn in turns if turn.role == role)
    return tuple(Said(turn.time, turn.content) for turn in of_role)
